"""The sizes that AWS Fargate offers for a task. Pure.

CPU and memory: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html
Disk: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_EphemeralStorage.html
"""

from collections.abc import Mapping

CPU_UNITS_PER_VCPU = 1024
MIB_PER_GIB = 1024

MEMORY_MIB: Mapping[int, tuple[int, ...]] = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4096 + 1, 1024)),
    1024: tuple(range(2048, 8192 + 1, 1024)),
    2048: tuple(range(4096, 16384 + 1, 1024)),
    4096: tuple(range(8192, 30720 + 1, 1024)),
    8192: tuple(range(16384, 61440 + 1, 4096)),
    16384: tuple(range(32768, 122880 + 1, 8192)),
}
"""The amounts of memory that a task may have, smallest first, by its CPU units."""

DISK_OF_EVERY_TASK_GIB = 20
"""Included in every task; a task can request more."""

LARGEST_DISK_GIB = 200
