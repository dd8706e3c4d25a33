"""How a flow process gets a Snakemake: forked by a process of its worker, or started anew.

The worker keeps a zygote for each environment in use (`flows.worker.warm_environments`). A flow
process asks for a supervisor by one message on a socket that it has inherited, with the supervisor's
end of the job's socket; nothing comes back but what the supervisor itself sends.
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
"""Names the inherited socket (SOCK_SEQPACKET); not there under runners other than our worker."""

LARGEST_MESSAGE = 1 << 16


@dataclass(frozen=True, slots=True)
class WarmStart:
    """A supervisor is wanted."""

    python: str
    """The interpreter of the workflow's environment."""
    runtime: str
    """What is to be on its `sys.path` for ours."""

    def to_message(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_message(cls, message: bytes) -> "WarmStart":
        return cls(**json.loads(message))


def start_supervisor(environment: Environment, variables: Mapping[str, str]) -> socket.socket:
    """Our end of a new supervisor's socket. `variables` are what a new program gets."""
    ours, theirs = socket.socketpair()
    with theirs:
        number = os.environ.get(WARM_START_VARIABLE)
        if number is None:
            _start_anew(environment, theirs, variables)
        else:
            message = WarmStart(str(environment.python), str(environment.runtime)).to_message()
            with socket.socket(fileno=os.dup(int(number))) as worker:
                socket.send_fds(worker, [message], [theirs.fileno()])
    return ours


def runtime_command(python: Path | str, module: str, descriptor: int) -> list[str]:
    """Starts a module of ours in a workflow environment."""
    return [str(python), "-m", f"flows.snakemake_process.{module}", str(descriptor)]


def runtime_variables(runtime: Path | str, variables: Mapping[str, str]) -> dict[str, str]:
    """`variables`, and where our modules are. Snakemake gets its own variables from the flow later."""
    return {**variables, "PYTHONPATH": str(runtime), "PYTHONUNBUFFERED": "1"}


def _start_anew(environment: Environment, control: socket.socket, variables: Mapping[str, str]) -> None:
    """Seconds slower than a fork, and always possible."""
    subprocess.Popen(
        runtime_command(environment.python, "supervisor", control.fileno()),
        pass_fds=[control.fileno()],
        cwd=environment.runtime,
        env=runtime_variables(environment.runtime, variables),
        start_new_session=True,
    )
