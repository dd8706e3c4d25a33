"""Repairs of Prefect's server. `deployments.server` applies them before it starts.

Each has a test in `tests/contracts/test_prefect_server.py`, which fails when Prefect no longer needs it.
"""

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from docket import Docket
from prefect.server.database import PrefectDBInterface, db_injector
from prefect.server.events import triggers
from prefect.server.logs import messaging as log_messaging
from prefect.server.models import logs as log_models
from prefect.server.models.deployments import mark_deployments_ready
from prefect.server.models.work_queues import mark_work_queues_ready
from prefect.server.schemas.actions import LogCreate
from prefect.server.schemas.core import Log, TaskRun
from prefect.server.services import task_run_recorder
from prefect.server.utilities import postgres_listener
from prefect.server.utilities.database import Timestamp
from prefect.settings import get_current_settings
from sqlalchemy.ext.asyncio import AsyncSession

_LONGEST_PAUSE_SECONDS = 3.0
_POLLS_SECONDS = 10.0
_RECORD_A_POLL = (mark_work_queues_ready, mark_deployments_ready)


def repair() -> None:
    """Apply all repairs; those of Valkey's part where the server uses Valkey."""
    record_within_fractions_of_a_second()
    listen_again()
    bind_plain_times()
    insert_rows_apart()
    record_polls_seldom()
    if "PREFECT_REDIS_MESSAGING_URL" in os.environ:
        come_back_soon()


def record_within_fractions_of_a_second() -> None:
    """Let the recorder of task runs flush at intervals below a second.

    Prefect rounds the interval down to whole seconds (`int(flush_interval)` in `TaskRunRecorder.start`),
    and with 0 the recorder uses a whole core.
    """
    consumer = task_run_recorder.consumer
    interval = get_current_settings().server.services.task_run_recorder.flush_interval

    def consumer_in_time(write_batch_size: int, flush_every: int, **options: Any) -> Any:
        return consumer(write_batch_size, interval, **options)  # type: ignore[arg-type]  # it only sleeps so long

    task_run_recorder.consumer = consumer_in_time  # type: ignore[assignment]  # as it is called


def bind_plain_times() -> None:
    """Send times to the database as `datetime`: a rule job costs three quarters of the CPU.

    Before Python 3.13, Prefect's times are those of pendulum, and asyncpg subtracts each from a fixed time:
    pendulum then makes an `Interval` with months and weeks that nobody reads.
    """
    bind = Timestamp.process_bind_param

    def plain(self: Timestamp, value: datetime | None, dialect: Any) -> datetime | None:
        bound = bind(self, value, dialect)
        if bound is None or type(bound) is datetime:
            return bound
        return datetime.combine(bound.date(), bound.timetz())

    Timestamp.process_bind_param = plain  # type: ignore[method-assign]  # that is the repair


def insert_rows_apart() -> None:
    """Insert task-run states and log entries by one prepared statement each, as Prefect inserts events.

    Prefect writes all rows into one statement. SQLAlchemy can't cache it, and compiles a parameter for
    each of its thousands of values: a fifth of the CPU of a rule job.
    """
    task_run_recorder._insert_task_run_states = db_injector(_insert_task_run_states)
    log_models.create_logs = db_injector(_create_logs)


async def _insert_task_run_states(
    db: PrefectDBInterface, session: AsyncSession, task_runs: list[TaskRun]
) -> None:
    created = datetime.now(UTC)
    rows = [
        {"created": created, "task_run_id": task_run.id, **task_run.state.model_dump()}
        for task_run in task_runs
        if task_run.state is not None
    ]
    statement = db.queries.insert(db.TaskRunState).on_conflict_do_nothing(index_elements=["id"])
    await session.execute(statement.execution_options(dml_strategy="raw"), rows)


async def _create_logs(db: PrefectDBInterface, session: AsyncSession, logs: Sequence[LogCreate]) -> None:
    entries = [Log(**log_models._sanitize_log_strings(log).model_dump()) for log in logs]
    rows = [entry.model_dump(exclude={"created", "updated"}) for entry in entries]
    await session.execute(db.queries.insert(db.Log).execution_options(dml_strategy="raw"), rows)
    await log_messaging.publish_logs(entries)


def record_polls_seldom() -> None:
    """Write down when a worker has asked for jobs at most every few seconds: two thirds of what asking costs.

    A worker asks at each submission and each end of a job. Prefect then sets the time of it at the queue and
    all its deployments, in two background tasks, and looks only whether it is older than a minute.
    """
    add = Docket.add
    recorded: dict[str, float] = {}

    def add_unless_recorded(
        docket: Docket, function: Any, when: datetime | None = None, key: str | None = None
    ) -> Callable[..., Awaitable[Any]]:
        schedule = add(docket, function, when, key)
        if key is None or function not in _RECORD_A_POLL:
            return schedule

        async def seldom(**arguments: Any) -> Any:
            now = time.monotonic()
            is_known = now - recorded.get(key, -_POLLS_SECONDS) < _POLLS_SECONDS
            if is_known and not arguments.get("ready_work_queue_ids"):
                return None
            recorded[key] = now
            return await schedule(**arguments)

        return seldom

    Docket.add = add_unless_recorded  # type: ignore[method-assign,assignment]  # that is the repair


def listen_again() -> None:
    """Let the server hear of new and changed automations after an outage of PostgreSQL.

    Prefect gives up when PostgreSQL is away as it connects again, because `get_pg_notify_connection` then
    returns None, as for SQLite. From then on the server learns of a new trigger up to five seconds late,
    and misses what happens in between. An error lets `listen_for_automation_changes` connect again.
    """
    connect = postgres_listener.get_pg_notify_connection
    database = get_current_settings().server.database.connection_url

    async def connection() -> Any:
        found = await connect()
        if found is None and database and database.get_secret_value().startswith("postgres"):
            raise ConnectionError("PostgreSQL is away")
        return found

    triggers.get_pg_notify_connection = connection  # type: ignore[attr-defined]  # imported there


def come_back_soon() -> None:
    """Let those who read from Valkey look for it every few seconds while it is away.

    `prefect_redis.messaging.Consumer.run` waits up to a minute, without a setting: jobs that have ended
    would wait for as long to become final.
    """
    from prefect_redis import messaging  # noqa: PLC0415 - an optional package

    pause = messaging.exponential_backoff_with_jitter

    def short_pause(attempt: int, base_delay: float, max_delay: float) -> float:
        return float(pause(attempt, base_delay, min(max_delay, _LONGEST_PAUSE_SECONDS)))

    messaging.exponential_backoff_with_jitter = short_pause
