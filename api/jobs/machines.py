"""The machine that a job gets on Fargate: the smallest that is enough. Pure."""

from collections.abc import Mapping
from typing import Any

from api.settings import Machines
from api.web.problems import FieldProblem, MachineRefused
from flows.contract.fargate import (
    CPU_UNITS_PER_VCPU,
    DISK_OF_EVERY_TASK_GIB,
    LARGEST_DISK_GIB,
    MEMORY_MIB,
    MIB_PER_GIB,
)
from flows.contract.spec import JobSpec

_MEMORY_MIB: Mapping[int, tuple[int, ...]] = {
    cpu_units // CPU_UNITS_PER_VCPU: sizes
    for cpu_units, sizes in MEMORY_MIB.items()
    if cpu_units >= CPU_UNITS_PER_VCPU
}
"""By whole cores, which is what a job asks for."""

_MEMORY_PER_CORE_MIB = 2 * MIB_PER_GIB


def job_variables(spec: JobSpec, machines: Machines) -> Mapping[str, Any]:
    """The values for the base job template of the work pool. Raises `MachineRefused`.

    `resources.mem_mb` and `resources.disk_mb` are in MiB, and rounded up to the next size.
    """
    if machines is Machines.ANY:
        if spec.spot:
            raise _refused("This service has no Spot machines.", "Leave out `spot`.", "#/spot")
        return {}
    variables: dict[str, Any] = {
        "cpu": spec.cores * CPU_UNITS_PER_VCPU,
        "memory": _memory_mib(spec),
        "launch_type": "FARGATE_SPOT" if spec.spot else "FARGATE",
    }
    disk_gib = _disk_gib(spec)
    if disk_gib > DISK_OF_EVERY_TASK_GIB:
        variables["ephemeral_storage"] = {"sizeInGiB": disk_gib}
    return variables


def _memory_mib(spec: JobSpec) -> int:
    sizes = _MEMORY_MIB.get(spec.cores)
    if sizes is None:
        raise _refused(
            f"There is no machine with {spec.cores} cores.",
            f"Set `cores` to {_nearest_cores(spec.cores)}.",
            "#/cores",
        )
    wanted_mib = spec.resources.get("mem_mb", spec.cores * _MEMORY_PER_CORE_MIB)
    fitting = next((size for size in sizes if size >= wanted_mib), None)
    if fitting is None:
        raise _refused(
            f"A machine with {spec.cores} {'core' if spec.cores == 1 else 'cores'} has at most "
            f"{sizes[-1]} MB of memory, not {wanted_mib}.",
            _more_memory(wanted_mib, sizes[-1]),
            "#/resources/mem_mb",
        )
    return fitting


def _nearest_cores(cores: int) -> str:
    smaller = [size for size in _MEMORY_MIB if size < cores]
    larger = [size for size in _MEMORY_MIB if size > cores]
    return " or ".join(str(size) for size in (*smaller[-1:], *larger[:1]))


def _more_memory(wanted_mib: int, most_mib: int) -> str:
    less = f"Set `resources.mem_mb` to {most_mib} or less"
    for cores, sizes in _MEMORY_MIB.items():
        if sizes[-1] >= wanted_mib:
            return f"{less}, or `cores` to {cores}, which allows that much memory."
    return f"{less}; the largest machine, of 16 cores, has {_MEMORY_MIB[16][-1]} MB."


def _disk_gib(spec: JobSpec) -> int:
    wanted_mib = spec.resources.get("disk_mb", 0)
    disk_gib = -(-wanted_mib // MIB_PER_GIB)
    if disk_gib > LARGEST_DISK_GIB:
        raise _refused(
            f"A machine has at most {LARGEST_DISK_GIB * MIB_PER_GIB} MB of disk, not {wanted_mib}.",
            f"Set `resources.disk_mb` to {LARGEST_DISK_GIB * MIB_PER_GIB} or less.",
            "#/resources/disk_mb",
        )
    return disk_gib


def _refused(detail: str, resolution: str, pointer: str) -> MachineRefused:
    return MachineRefused(detail, resolution, [FieldProblem(pointer=pointer, message=detail)])
