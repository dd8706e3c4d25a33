"""Which processes of a stack are which."""

import psutil

from deployments.local import LocalStack

FLOW_ZYGOTE = "flows.worker.zygote"
ENVIRONMENT_ZYGOTE = "flows.snakemake_process.zygote"


def prefect_url_with_password(stack: LocalStack) -> str:
    """The address of the Prefect server, for a client that takes the password from there."""
    return stack.settings.prefect_url.replace("://", f"://{stack.auth_string}@")


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
