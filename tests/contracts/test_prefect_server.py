"""What `deployments.server` changes in Prefect's server, and whether it is still needed."""

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import prefect.settings
import pytest
from prefect.server.api import workers
from prefect.server.events import triggers
from prefect.server.models import logs
from prefect.server.schemas.actions import LogCreate
from prefect.server.schemas.core import TaskRun
from prefect.server.schemas.states import Completed
from prefect.server.services import task_run_recorder
from prefect.server.services.task_run_recorder import TaskRunRecorder
from prefect.server.utilities.database import Timestamp
from prefect.server.utilities.messaging import Message
from prefect.server.utilities.postgres_listener import get_pg_notify_connection
from prefect.settings import (
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL,
    temporary_settings,
)
from prefect.types._datetime import now
from prefect_redis import messaging
from sqlalchemy.dialects import postgresql

from deployments import server, server_repairs


class Asked(Exception):
    """The recorder has asked for its consumer."""


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options with which the recorder asks for its consumer."""
    options: dict[str, Any] = {}

    @asynccontextmanager
    async def consumer(write_batch_size: int, flush_every: float, **others: Any) -> AsyncIterator[None]:
        options.update(others, write_batch_size=write_batch_size, flush_every=flush_every)
        raise Asked
        yield

    monkeypatch.setattr(task_run_recorder, "consumer", consumer)
    return options


def start_recorder() -> None:
    with pytest.raises(Asked):
        asyncio.run(TaskRunRecorder().start())  # type: ignore[no-untyped-call]  # Prefect has no types here


@pytest.fixture(autouse=True)
def half_a_second() -> Iterator[None]:
    with temporary_settings({PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL: 0.5}):
        yield


def test_the_consumer_of_the_recorder_takes_what_we_call_it_with() -> None:
    parameters = list(inspect.signature(task_run_recorder.consumer).parameters)
    assert parameters == ["write_batch_size", "flush_every", "max_persist_retries"]


def test_prefect_still_rounds_the_interval_of_its_recorder_down(asked_for: dict[str, Any]) -> None:
    """When this fails, `record_within_fractions_of_a_second` has become superfluous."""
    start_recorder()
    assert asked_for["flush_every"] == 0


def test_our_server_keeps_to_the_interval(asked_for: dict[str, Any]) -> None:
    server_repairs.record_within_fractions_of_a_second()

    start_recorder()

    assert asked_for["flush_every"] == 0.5


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings name a PostgreSQL that isn't there."""
    monkeypatch.setattr(triggers, "get_pg_notify_connection", get_pg_notify_connection)
    url = "postgresql+asyncpg://prefect@/prefect?host=/nowhere"
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: url}):
        yield


@pytest.mark.usefixtures("no_database")
def test_prefect_still_takes_a_postgresql_that_is_away_for_sqlite() -> None:
    """When this fails, `listen_again` has become superfluous."""
    asyncio.run(triggers.listen_for_automation_changes())  # it has given up


@pytest.mark.usefixtures("no_database")
def test_our_server_looks_for_postgresql_again() -> None:
    server_repairs.listen_again()

    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(triggers.listen_for_automation_changes(), 1))


@pytest.fixture
def bind(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], datetime | None]:
    """What is sent to PostgreSQL for a time; put back afterwards."""
    monkeypatch.setattr(Timestamp, "process_bind_param", Timestamp.process_bind_param)
    return lambda value: Timestamp().process_bind_param(value, postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy's


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="there, Prefect's times are those of Python")
def test_prefect_still_sends_times_of_pendulum(bind: Callable[[datetime], datetime | None]) -> None:
    """When this fails, `bind_plain_times` has become superfluous."""
    assert type(bind(now("UTC"))) is not datetime


@pytest.mark.parametrize(
    "value", [now("UTC"), now("Europe/Berlin"), datetime.now(UTC)], ids=["utc", "local", "plain"]
)
def test_our_server_sends_the_same_times_as_those_of_python(
    bind: Callable[[datetime], datetime | None], value: datetime
) -> None:
    server_repairs.bind_plain_times()

    bound = bind(value)

    assert bound == value
    assert type(bound) is datetime
    assert bound.utcoffset() == value.utcoffset()


class Executed:
    """A session that keeps what it is to execute: a statement, and rows if they come apart from it."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()

    async def execute(self, *arguments: Any) -> None:
        self.arguments = arguments


ROW = LogCreate.model_validate({"name": "a", "level": 20, "message": "one", "timestamp": now("UTC")})
TASK_RUN = TaskRun(id=uuid4(), task_key="a", dynamic_key="0", state=Completed(timestamp=now("UTC")))


def insert(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What creating two log entries, and recording two states, executes."""

    async def ignore(_: object) -> None:
        pass

    monkeypatch.setattr("prefect.server.logs.messaging.publish_logs", ignore)
    logging, recording = Executed(), Executed()
    asyncio.run(logs.create_logs(logging, [ROW, ROW]))
    asyncio.run(task_run_recorder._insert_task_run_states(recording, [TASK_RUN, TASK_RUN]))
    return [logging.arguments, recording.arguments]


def test_prefect_still_writes_all_rows_into_one_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, `insert_rows_apart` has become superfluous, or a half of it."""
    assert [len(arguments) for arguments in insert(monkeypatch)] == [1, 1]


def test_our_server_inserts_rows_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tests/deployments/test_server_repairs.py` has a real server do it."""
    monkeypatch.setattr(logs, "create_logs", logs.create_logs)
    monkeypatch.setattr(
        task_run_recorder, "_insert_task_run_states", task_run_recorder._insert_task_run_states
    )
    server_repairs.insert_rows_apart()

    for _, rows in insert(monkeypatch):
        assert len(rows) == 2


@pytest.mark.parametrize("task", server_repairs._RECORD_A_POLL)
def test_prefect_still_writes_down_each_poll_of_a_worker(task: Callable[..., Any]) -> None:
    """When this fails, `record_polls_seldom` has become superfluous. A real server does it with us."""
    assert f"docket.add(\n        {task.__name__}," in inspect.getsource(workers.get_scheduled_flow_runs)


@pytest.fixture
def longest_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest pauses with which a consumer that can't reach Valkey has asked for a pause."""
    asked: list[float] = []

    def pause(attempt: int, base_delay: float, max_delay: float) -> float:
        asked.append(max_delay)
        raise Asked

    monkeypatch.setattr(messaging, "exponential_backoff_with_jitter", pause)
    monkeypatch.setenv("PREFECT_REDIS_MESSAGING_URL", "unix:///nowhere/valkey.sock")
    return asked


def start_consumer() -> None:
    async def ignore(message: Message) -> None:
        pass

    with pytest.raises(Asked):
        asyncio.run(messaging.Consumer("events").run(ignore))


def test_a_consumer_still_waits_up_to_a_minute_for_valkey(longest_pause: list[float]) -> None:
    """When this fails, `come_back_soon` has become superfluous."""
    start_consumer()
    assert longest_pause == [60]


def test_a_consumer_of_our_server_looks_for_valkey_every_few_seconds(longest_pause: list[float]) -> None:
    server_repairs.come_back_soon()

    start_consumer()

    assert longest_pause == [3]


@pytest.mark.parametrize("name", [*server.TUNING, *server.SINGLE_PROCESS_TUNING])
def test_each_variable_of_the_tuning_is_one_of_prefects(name: str) -> None:
    assert hasattr(prefect.settings, name)
