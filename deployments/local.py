"""The embedded stack on one machine: PostgreSQL, Prefect server, worker and jobs API.

All data is under one home directory, and all processes listen on loopback. A second start with the same
home directory keeps the jobs of the first.
"""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import httpx

from deployments.credentials import Credentials
from deployments.postgres import Postgres
from deployments.processes import StackError, StackProcess, python, run_to_end
from deployments.settings import LocalSettings
from deployments.supervision import Part, Supervision, end_recorded
from deployments.valkey import Valkey

PROJECT = Path(__file__).parent.parent
WORK_POOL = "snakemake"
_WORKER = "local"
READY_SECONDS = 120.0
_WORKER_STOP_SECONDS = 30.0
_SERVER_STOP_SECONDS = 10.0


class LocalStack:
    """Runs from `start` to `stop`, or inside a `with` block."""

    def __init__(self, settings: LocalSettings, say: Callable[[str], None] = print) -> None:
        self.settings = settings
        self._say = say
        self._home = settings.home.resolve()
        self._records = self._home / "processes.json"
        self._stack = ExitStack()
        self._supervision = Supervision(self._records, say)
        self._credentials = Credentials(self._home)
        self.database_url = ""
        self.database_variables: dict[str, str] = {}
        """What a client of the database needs in its environment."""
        self._broker_variables: Mapping[str, str] = {}
        self.auth_string = ""
        """User and password of the Prefect server."""
        self._servers: list[Part] = []
        self._services: Part | None = None
        self._valkey: Part | None = None
        self._worker: Part
        self._api: Part

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

    def supervise(self) -> None:
        """Start each process again that has ended. Call it often, from the thread that called `start`."""
        self._supervision.supervise()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def server(self) -> StackProcess:
        """The Prefect server, or the first of its processes."""
        return self.servers[0]

    @property
    def servers(self) -> list[StackProcess]:
        """The processes that serve Prefect's API."""
        return [part.process for part in self._servers]

    @property
    def services(self) -> StackProcess | None:
        """Prefect's services, if they run in a process of their own."""
        return None if self._services is None else self._services.process

    @property
    def valkey(self) -> StackProcess | None:
        """What the processes of a larger Prefect server share."""
        return None if self._valkey is None else self._valkey.process

    @property
    def worker(self) -> StackProcess:
        return self._worker.process

    @property
    def api(self) -> StackProcess:
        return self._api.process

    @property
    def auth_file(self) -> Path:
        """The file with `auth_string`, if it was generated."""
        return self._credentials.prefect_file

    def restart_worker(self) -> None:
        """Replace the worker by a new one. Returns when it is ready for jobs."""
        self._supervision.restart(self._worker)
        self._wait_for_worker()

    def restart_server(self) -> None:
        """Replace the Prefect server by a new one. Returns when it responds."""
        for part in self._servers:
            self._supervision.restart(part)
        self._wait_for_server()

    def restart_api(self) -> None:
        """Replace the jobs API by a new one. Returns when it responds."""
        self._supervision.restart(self._api)
        self._wait_for_api()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for programs of this stack and for the `prefect` command."""
        return {
            **os.environ,
            "PREFECT_API_URL": f"{self.settings.prefect_url}/api",
            "PREFECT_API_AUTH_STRING": self.auth_string,
            "PREFECT_HOME": str(self._home / "prefect"),
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",  # each job would ask the server for a token
            "DO_NOT_TRACK": "1",
            "JOBS_HOME": str(self._home),
            "JOBS_API_PORT": str(self.settings.api_port),
            "JOBS_PUBLIC_URL": os.environ.get("JOBS_PUBLIC_URL") or self.settings.api_url,
            "JOBS_WORKFLOW_ROOTS": self.settings.workflow_roots,
            "JOBS_CONCURRENT_JOBS": str(self.settings.concurrent_jobs),
        }

    def _start(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        self._lock_home()
        end_recorded(self._records)
        for port, variable in (
            (self.settings.api_port, "JOBS_API_PORT"),
            (self.settings.prefect_port, "PREFECT_SERVER_API_PORT"),
        ):
            _require_free(port, variable)
        self.auth_string = self._credentials.prefect_auth(os.environ)
        self._credentials.write_profile(f"{self.settings.prefect_url}/api", self.auth_string)
        making = self._make_environments()
        self._say("Starting PostgreSQL and the Prefect server …")
        self._start_database()
        self._start_prefect()
        self._say("Creating the environments of workflows, if they do not exist …")
        making.wait()
        self._say("Starting the worker and the jobs API …")
        self._worker = self._add("worker", "The worker", self._start_worker, self._worker_stop_seconds)
        self._api = self._add("api", "The jobs API", self._start_api, _SERVER_STOP_SECONDS)
        run_to_end("the registration of prefect.yaml", _REGISTER, self.environment, PROJECT)
        self._wait_for_api()
        self._wait_for_worker()

    def _add(
        self, name: str, title: str, start_process: Callable[[], StackProcess], stop_seconds: float
    ) -> Part:
        part = self._supervision.add(name, title, start_process, stop_seconds)
        self._stack.callback(part.stop)
        return part

    def _make_environments(self) -> StackProcess:
        """Create them in the background. A failure does not stop the stack: the log and jobs report it."""
        making = self._start_python("environments", ["-m", "deployments", "environments"])
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

    def _start_database(self) -> None:
        if self.settings.database_url is not None:
            self.database_url = self.settings.database_url.get_secret_value()
            return
        postgres = Postgres(self._home / "postgres", self._credentials, self._home / "logs")
        postgres.prepare(self._stack)
        self.database_url, self.database_variables = postgres.url, postgres.variables
        part = self._add("postgres", "PostgreSQL", postgres.start, _SERVER_STOP_SECONDS)
        self._wait_until(lambda: postgres.is_ready(part.process.pid), "PostgreSQL is ready")

    def _start_prefect(self) -> None:
        """Start the Prefect server: one process, or several that share Valkey."""
        if self.settings.prefect_workers == 1:
            self._add_server("prefect-server", ["--host", "127.0.0.1"])
        else:
            self._start_valkey()
            run_to_end("The migration of Prefect's database", _MIGRATE, self._server_environment, PROJECT)
            self._services = self._add(
                "prefect-services", "Prefect's services", self._start_services, _SERVER_STOP_SECONDS
            )
            for number in range(1, self.settings.prefect_workers + 1):
                self._add_server(f"prefect-server-{number}", ["api", "--host", "127.0.0.1"])
                self._wait_for_server()  # the first makes the files of the UI for all
        self._wait_for_server()

    def _add_server(self, name: str, command: list[str]) -> None:
        def start() -> StackProcess:
            return self._start_python(
                name,
                ["-m", "deployments.server", *command, "--port", str(self.settings.prefect_port)],
                self._server_environment,
            )

        self._servers.append(self._add(name, "The Prefect server", start, _SERVER_STOP_SECONDS))

    def _start_services(self) -> StackProcess:
        command = ["-m", "deployments.server", "services"]
        return self._start_python("prefect-services", command, self._server_environment)

    def _start_valkey(self) -> None:
        valkey = Valkey(self._home / "valkey", self._home / "logs")
        valkey.prepare(self._stack)
        self._broker_variables = valkey.variables
        self._valkey = self._add("valkey", "Valkey", valkey.start, _SERVER_STOP_SECONDS)
        self._wait_until(valkey.is_ready, "Valkey is ready")

    @property
    def _server_environment(self) -> dict[str, str]:
        origins = [f"http://{host}:{self.settings.prefect_port}" for host in ("127.0.0.1", "localhost")]
        return {
            # Pages of other origins may not call the API; the UI is a page of these.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
            **self.environment,
            **self.database_variables,
            **self._broker_variables,
            "PREFECT_API_DATABASE_CONNECTION_URL": self.database_url,
            "PREFECT_SERVER_API_AUTH_STRING": self.auth_string,
            "PREFECT_UI_API_URL": f"{self.settings.prefect_url}/api",
        }

    def _wait_for_server(self) -> None:
        self._wait_until(
            lambda: _responds(f"{self.settings.prefect_url}/api/health"), "the Prefect server responds"
        )

    def _start_api(self) -> StackProcess:
        return self._start_python("api", ["-m", "api"])

    def _wait_for_api(self) -> None:
        self._wait_until(lambda: _responds(f"{self.settings.api_url}/livez"), "the jobs API responds")

    def _start_worker(self) -> StackProcess:
        command = [
            *["-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "snakemake"],
            *["--name", _WORKER, "--limit", str(self.settings.concurrent_jobs)],
        ]
        self._worker_started_at = datetime.now(UTC)
        return self._start_python("worker", command)

    @property
    def _worker_stop_seconds(self) -> float:
        return self.settings.drain_seconds + _WORKER_STOP_SECONDS

    def _wait_for_worker(self) -> None:
        def is_online() -> bool:
            url = f"{self.settings.prefect_url}/api"
            return _WORKER in online_since(self._worker_started_at, url, WORK_POOL, self.auth_string)

        self._wait_until(is_online, "the worker is ready")

    def _start_python(
        self, name: str, command: list[str], environment: dict[str, str] | None = None
    ) -> StackProcess:
        return StackProcess.start(
            name, python(*command), environment or self.environment, self._home / "logs"
        )

    def _wait_until(self, is_true: Callable[[], bool], description: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not is_true():
            self._supervision.check()
            if time.monotonic() > deadline:
                raise StackError(f"Timed out after {READY_SECONDS:g} s of waiting until {description}.")
            time.sleep(0.1)


_MIGRATE = ["-m", "deployments.server", "migrate"]
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
