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

from deployments.broker import BrokerSettings

TUNING: Mapping[str, str] = {
    # Task-run states and events arrive in bursts of thousands. In batches of 200, two states of a rule
    # job cost the server 4 to 5 ms of CPU.
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
SINGLE_PROCESS_TUNING: Mapping[str, str] = {
    # Hundreds of running jobs ask at once; with Prefect's 15 connections, some got errors after 30 seconds.
    # A larger server has them in each of its processes, and PostgreSQL takes 100 in all.
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "10",
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_MAX_OVERFLOW": "20",
}
BROKER_TUNING: Mapping[str, str] = {
    # Events of rule jobs reach Valkey in as large batches as they reach the server.
    "PREFECT_REDIS_MESSAGING_PUBLISHER_BATCH_SIZE": "200",
}

_NEW_OBJECTS_UNTIL_COLLECTION = 50_000
_OF_A_LARGER_SERVER = ("migrate", "api", "services")


def main() -> None:
    command, *options = sys.argv[1:] or [""]
    shared = BrokerSettings().variables if command in _OF_A_LARGER_SERVER else SINGLE_PROCESS_TUNING
    for name, value in {**TUNING, **BROKER_TUNING, **shared}.items():
        os.environ.setdefault(name, value)
    # Prefect reads its settings when it is imported.
    from prefect.cli import app  # noqa: PLC0415 - as above

    from deployments.server_repairs import repair  # noqa: PLC0415 - as above

    repair()
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


def _collect_seldom() -> None:
    """Search for garbage less often, and not among what stays: 0.8 times the CPU of a rule job."""
    from prefect.server.api import server  # noqa: F401, PLC0415 - what stays

    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS_UNTIL_COLLECTION)


if __name__ == "__main__":
    main()
