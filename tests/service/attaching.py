"""A Snakemake of a user's own, with the logger plugin `prefect`, and the way from there to Prefect."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from deployments.local import PROJECT, LocalStack
from tests.flows.environments.test_versions import environment_of
from tests.support import JobsClient, Json, wait_until

PLUGIN = PROJECT / "flows" / "attach"
NEWEST = "9.27.1"


@dataclass(frozen=True)
class User:
    """Somebody with a workflow, Snakemake and the address of Prefect."""

    directory: Path
    variables: Mapping[str, str]
    python: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end."""
        return subprocess.run(
            self._command(arguments),
            cwd=self.directory,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Snakemake in a session of its own, as in a terminal; nothing of it is left afterwards."""
        process = subprocess.Popen(
            self._command(arguments),
            cwd=self.directory,
            env=self._environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # What a shell starts in the background ignores it, and so would all that the tests start.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.communicate()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [str(self.python), "-m", "snakemake", "--cores", "2", "--logger", "prefect", *arguments]

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory.parent), **self.variables}


def user_of(directory: Path, stack: LocalStack, version: str = NEWEST, port: int | None = None) -> User:
    """Their Snakemake has neither Prefect nor the service beside it. `port` is that of a detour."""
    url = stack.settings.prefect_url if port is None else f"http://127.0.0.1:{port}"
    variables = {
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_API_AUTH_STRING": stack.auth_string,
        "PYTHONPATH": str(PLUGIN),
    }
    return User(directory, variables, environment_of(version).python)


def built_wheel(directory: Path) -> Path:
    """The wheel of the plugin, built away from the checkout."""
    shutil.copytree(PLUGIN, directory / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", directory / "dist", directory / "source"], check=True)
    (wheel,) = (directory / "dist").glob("*.whl")
    return wheel


def job_named(jobs: JobsClient, name: str) -> Json:
    """The newest job of that name, as soon as there is one."""

    def newest() -> Json | None:
        found: list[Json] = jobs.http.get("/jobs", params={"name": name}).json()["items"]
        return found[0] if found else None

    job = wait_until(newest, f"there is a job {name}", seconds=20)
    assert job is not None
    return job


@dataclass
class Detour:
    """A way to Prefect that can be closed, and counts who takes it: each request is a connection."""

    port: int
    target: tuple[str, int]
    connections: int = 0
    _listener: socket.socket | None = None
    _ends: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """From now on, connections are refused, and open ones end."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.connections += 1
                server = socket.create_connection(self.target)
                self._ends += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=ends, daemon=True).start()


@contextmanager
def detour(stack: LocalStack) -> Iterator[Detour]:
    """A way that is open."""
    address = urlsplit(stack.settings.prefect_url)
    assert address.hostname is not None
    assert address.port is not None
    way = Detour(0, (address.hostname, address.port))
    way.open()
    try:
        yield way
    finally:
        way.close()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
