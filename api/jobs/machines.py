"""The machine that a job gets on Fargate, whose tasks come in few sizes. Pure.

Sizes: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html, those of
whole cores; the disk: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_EphemeralStorage.html
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from api.web.problems import FieldProblem, MachineRefused
from flows.contract.spec import JobSpec

_MIB_PER_GIB = 1024
_CPU_UNITS = 1024
"""A core, in ECS's words."""

_MEMORY_GIB: Mapping[int, range] = {
    1: range(2, 8 + 1),
    2: range(4, 16 + 1),
    4: range(8, 30 + 1),
    8: range(16, 60 + 1, 4),
    16: range(32, 120 + 1, 8),
}
"""What may be had with so many cores."""

_MEMORY_PER_CORE_MIB = 2 * _MIB_PER_GIB
_DISK_OF_EVERY_TASK_GIB = 20
_LARGEST_DISK_GIB = 200


class Machines(StrEnum):
    """What jobs run on."""

    ANY = "any"
    """Machines that are there, whatever the job asks for."""
    FARGATE = "fargate"
    """A task of its own for each job, of the size that the job asks for."""


def job_variables(spec: JobSpec, machines: Machines) -> Mapping[str, Any]:
    """What the base job template of the work pool is filled in with. Raises `MachineRefused`.

    `resources.mem_mb` and `resources.disk_mb` are taken as MiB, and rounded up to what there is.
    """
    if machines is Machines.ANY:
        if spec.spot:
            raise _refused("This service has no Spot machines.", "Leave out `spot`.", "#/spot")
        return {}
    variables: dict[str, Any] = {
        "cpu": spec.cores * _CPU_UNITS,
        "memory": _memory_gib(spec) * _MIB_PER_GIB,
        "launch_type": "FARGATE_SPOT" if spec.spot else "FARGATE",
    }
    disk_gib = _disk_gib(spec)
    if disk_gib > _DISK_OF_EVERY_TASK_GIB:
        variables["ephemeral_storage"] = {"sizeInGiB": disk_gib}
    return variables


def _memory_gib(spec: JobSpec) -> int:
    sizes = _MEMORY_GIB.get(spec.cores)
    if sizes is None:
        raise _refused(
            f"There is no machine with {spec.cores} cores.",
            f"Set `cores` to {_nearest_cores(spec.cores)}.",
            "#/cores",
        )
    wanted_mib = spec.resources.get("mem_mb", spec.cores * _MEMORY_PER_CORE_MIB)
    fitting = next((size for size in sizes if size * _MIB_PER_GIB >= wanted_mib), None)
    if fitting is None:
        raise _refused(
            f"A machine with {spec.cores} {'core' if spec.cores == 1 else 'cores'} has at most "
            f"{sizes[-1] * _MIB_PER_GIB} MB of memory, not {wanted_mib}.",
            _more_memory(wanted_mib, sizes[-1]),
            "#/resources/mem_mb",
        )
    return fitting


def _nearest_cores(cores: int) -> str:
    smaller = [size for size in _MEMORY_GIB if size < cores]
    larger = [size for size in _MEMORY_GIB if size > cores]
    return " or ".join(str(size) for size in (*smaller[-1:], *larger[:1]))


def _more_memory(wanted_mib: int, most_gib: int) -> str:
    less = f"Set `resources.mem_mb` to {most_gib * _MIB_PER_GIB} or less"
    for cores, sizes in _MEMORY_GIB.items():
        if sizes[-1] * _MIB_PER_GIB >= wanted_mib:
            return f"{less}, or `cores` to {cores}, which may have as much."
    return f"{less}; the largest machine, of 16 cores, has {_MEMORY_GIB[16][-1] * _MIB_PER_GIB} MB."


def _disk_gib(spec: JobSpec) -> int:
    wanted_mib = spec.resources.get("disk_mb", 0)
    disk_gib = -(-wanted_mib // _MIB_PER_GIB)
    if disk_gib > _LARGEST_DISK_GIB:
        raise _refused(
            f"A machine has at most {_LARGEST_DISK_GIB * _MIB_PER_GIB} MB of disk, not {wanted_mib}.",
            f"Set `resources.disk_mb` to {_LARGEST_DISK_GIB * _MIB_PER_GIB} or less.",
            "#/resources/disk_mb",
        )
    return disk_gib


def _refused(detail: str, resolution: str, pointer: str) -> MachineRefused:
    return MachineRefused(detail, resolution, [FieldProblem(pointer=pointer, message=detail)])
