"""Starts Snakemake for a flow process: forked from a zygote of the worker, or as a new process.

The worker keeps a zygote for each environment in use (`flows.worker.warm_environments`). A flow
process requests a supervisor by one message on a socket that it has inherited, with the supervisor's
end of the job's socket. There is no response, except what the supervisor itself sends.
"""

import json
import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.environments.environment import Environment

WARM_START_VARIABLE = "SNAKEMAKE_WARM_START_FD"
"""The descriptor of the inherited socket (SOCK_SEQPACKET); only set by our worker."""

LARGEST_MESSAGE = 1 << 16


@dataclass(frozen=True, slots=True)
class WarmStart:
    """A request for a supervisor."""

    python: str
    """The interpreter of the workflow's environment."""
    runtime: str
    """The directory of our code, for its `sys.path`."""

    def to_message(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_message(cls, message: bytes) -> "WarmStart":
        return cls(**json.loads(message))


def start_supervisor(
    environment: Environment, variables: Mapping[str, str], *, is_warm: bool = True
) -> socket.socket:
    """Start a supervisor; our end of its socket. A new process gets the environment `variables`.

    It is a new process where no worker can fork one, or if `is_warm` is false.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        number = os.environ.get(WARM_START_VARIABLE) if is_warm else None
        if number is None or not _request_from_worker(int(number), environment, theirs):
            _start_process(environment, theirs, variables)
    return ours


def _request_from_worker(number: int, environment: Environment, theirs: socket.socket) -> bool:
    """Whether there is still a worker to ask."""
    message = WarmStart(str(environment.python), str(environment.runtime)).to_message()
    with socket.socket(fileno=os.dup(number)) as worker:
        try:
            socket.send_fds(worker, [message], [theirs.fileno()])
        except ConnectionError:
            return False
    return True


def runtime_command(python: Path | str, module: str, descriptor: int) -> list[str]:
    """The command that runs one of our modules in a workflow environment."""
    return [str(python), "-m", f"flows.snakemake_process.{module}", str(descriptor)]


def runtime_variables(runtime: Path | str, variables: Mapping[str, str]) -> dict[str, str]:
    """`variables` with the path of our modules. Snakemake gets its own variables from the flow later."""
    return {**variables, "PYTHONPATH": str(runtime), "PYTHONUNBUFFERED": "1"}


def _start_process(environment: Environment, control: socket.socket, variables: Mapping[str, str]) -> None:
    """Start a new process: seconds slower than a fork, but always possible."""
    subprocess.Popen(
        runtime_command(environment.python, "supervisor", control.fileno()),
        pass_fds=[control.fileno()],
        cwd=environment.runtime,
        env=runtime_variables(environment.runtime, variables),
        start_new_session=True,
    )
