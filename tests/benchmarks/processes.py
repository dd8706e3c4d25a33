"""Which processes of a stack are which, and what CPU they have used."""

from pathlib import Path

import psutil

from deployments.local import LocalStack

FLOW_ZYGOTE = "flows.worker.zygote"
ENVIRONMENT_ZYGOTE = "flows.snakemake_process.zygote"


def prefect_url_with_password(stack: LocalStack) -> str:
    """The address of the Prefect server, for a client that takes the password from there."""
    return stack.settings.prefect_url.replace("://", f"://{stack.auth_string}@")


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of the process alone."""
    times = process.cpu_times()
    return times.user + times.system


def machine_cpu() -> float:
    """Busy CPU seconds of all cores (proc_stat(5)); nothing else should run beside a benchmark."""
    user, nice, system, *_ = (
        int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system) / 100


def flow_zygote(stack: LocalStack) -> psutil.Process:
    """The process that forks flow processes."""
    (found,) = _children_with(stack, FLOW_ZYGOTE)
    return found


def zygotes_of(stack: LocalStack, python: str) -> list[psutil.Process]:
    """The processes that wait for jobs of the environment with this interpreter."""
    return [child for child in _children_with(stack, ENVIRONMENT_ZYGOTE) if child.cmdline()[0] == python]


def _children_with(stack: LocalStack, module: str) -> list[psutil.Process]:
    children = psutil.Process(stack.worker.pid).children()
    return [
        child for child in children if child.status() != psutil.STATUS_ZOMBIE and module in child.cmdline()
    ]
