"""Starts the Prefect server, tuned for jobs of many rule jobs: `python -m deployments.server --host …`.

It takes the options of `prefect server start`. The tuning sets variables of Prefect's own that are not
set already. A larger server runs in several processes that share Valkey (`deployments.broker`):

| command | runs |
|---|---|
| `python -m deployments.server migrate` | the migration of the database, before all others |
| `python -m deployments.server api --host … --port …` | the API; several processes share one port |
| `python -m deployments.server services` | what is done in the background, once |

`api --migrate` and `services --migrate` migrate first: for programs that are replaced one by one, and of
which any may be the first of a new version.
"""

import asyncio
import gc
import os
import sys
from collections.abc import Mapping
from typing import Any

from deployments.broker import BrokerSettings

TUNING: Mapping[str, str] = {
    # Task-run states and events arrive in bursts of thousands. In batches of 200, two states of a rule
    # job cost the server 4.8 ms of CPU.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    # A job is final when its last rule job is recorded, so a small job would wait for this interval.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "0.1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "200",
    # As soon after an outage of the database is a new trigger known at once.
    "PREFECT_SERVER_SERVICES_TRIGGERS_PG_NOTIFY_RECONNECT_INTERVAL_SECONDS": "1",
    # A job that waits in a full group is not late, and marking it Late costs a change of state.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
}
BROKER_TUNING: Mapping[str, str] = {
    # Events of rule jobs reach Valkey in as large batches as they reach the server.
    "PREFECT_REDIS_MESSAGING_PUBLISHER_BATCH_SIZE": "200",
}

_NEW_OBJECTS_UNTIL_COLLECTION = 50_000
_LONGEST_PAUSE_SECONDS = 3.0
_OF_A_LARGER_SERVER = ("migrate", "api", "services")


def main() -> None:
    command, *options = sys.argv[1:] or [""]
    shared = BrokerSettings().variables if command in _OF_A_LARGER_SERVER else {}
    for name, value in {**TUNING, **BROKER_TUNING, **shared}.items():
        os.environ.setdefault(name, value)
    # Prefect reads its settings when it is imported.
    from prefect.cli import app  # noqa: PLC0415 - as above

    _record_within_fractions_of_a_second()
    _listen_again()
    if "PREFECT_REDIS_MESSAGING_URL" in os.environ:
        _come_back_soon()
    if command == "migrate" or (command in _OF_A_LARGER_SERVER and "--migrate" in options):
        _migrate()
    if command == "migrate":
        return
    _collect_seldom()
    match command:
        case "api":
            from deployments import server_process  # noqa: PLC0415 - as above

            server_process.main([option for option in options if option != "--migrate"])
        case "services":
            sys.argv = ["prefect", "server", "services", "start"]
            app()
        case _:
            sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
            app()


def _migrate() -> None:
    from deployments.migration import migrate  # noqa: PLC0415 - as in `main`

    asyncio.run(migrate())


def _record_within_fractions_of_a_second() -> None:
    """Let the recorder of task runs flush at intervals below a second.

    Prefect rounds the interval down to whole seconds (`int(flush_interval)` in `TaskRunRecorder.start`),
    and with 0 the recorder uses a whole core. `tests/contracts` fails when that is repaired.
    """
    from prefect.server.services import task_run_recorder  # noqa: PLC0415 - as in `main`
    from prefect.settings import get_current_settings  # noqa: PLC0415 - as in `main`

    consumer = task_run_recorder.consumer
    interval = get_current_settings().server.services.task_run_recorder.flush_interval

    def consumer_in_time(write_batch_size: int, flush_every: int, **options: Any) -> Any:
        return consumer(write_batch_size, interval, **options)  # type: ignore[arg-type]  # it only sleeps so long

    task_run_recorder.consumer = consumer_in_time  # type: ignore[assignment]  # as it is called


def _collect_seldom() -> None:
    """Search for garbage less often, and not among what stays: 0.8 times the CPU of a rule job."""
    from prefect.server.api import server  # noqa: F401, PLC0415 - what stays

    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS_UNTIL_COLLECTION)


def _listen_again() -> None:
    """Let the server hear of new and changed automations after an outage of PostgreSQL.

    Prefect gives up when PostgreSQL is away as it connects again, because `get_pg_notify_connection` then
    returns None, as for SQLite. From then on the server learns of a new trigger up to five seconds late,
    and misses what happens in between. An error lets `listen_for_automation_changes` connect again.
    """
    from prefect.server.events import triggers  # noqa: PLC0415 - as in `main`
    from prefect.server.utilities import postgres_listener  # noqa: PLC0415 - as in `main`
    from prefect.settings import get_current_settings  # noqa: PLC0415 - as in `main`

    connect = postgres_listener.get_pg_notify_connection
    database = get_current_settings().server.database.connection_url

    async def connection() -> Any:
        found = await connect()
        if found is None and database and database.get_secret_value().startswith("postgres"):
            raise ConnectionError("PostgreSQL is away")
        return found

    triggers.get_pg_notify_connection = connection  # type: ignore[attr-defined]  # imported there


def _come_back_soon() -> None:
    """Let those who read from Valkey look for it every few seconds while it is away.

    `prefect_redis.messaging.Consumer.run` waits up to a minute, without a setting: jobs that have ended
    would wait for as long to become final.
    """
    from prefect_redis import messaging  # noqa: PLC0415 - an optional package

    pause = messaging.exponential_backoff_with_jitter

    def short_pause(attempt: int, base_delay: float, max_delay: float) -> float:
        return float(pause(attempt, base_delay, min(max_delay, _LONGEST_PAUSE_SECONDS)))

    messaging.exponential_backoff_with_jitter = short_pause


if __name__ == "__main__":
    main()
