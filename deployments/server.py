"""Starts the Prefect server, tuned for jobs of many rule jobs: `python -m deployments.server --host …`.

What follows are the options of `prefect server start`. The tuning are variables of Prefect's own;
those that are set already keep their values.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

TUNING: Mapping[str, str] = {
    # Task-run states and events arrive in bursts of thousands: recorded in batches of 200, two
    # states of a rule job cost the server 4.8 ms of CPU.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    # A job is final when the last of its rule jobs is recorded: a small one would wait for it.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "0.1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "200",
    # A job that waits for its turn in a full group is not late; telling so would cost each waiting
    # job a change of state.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
}


def main() -> None:
    for name, value in TUNING.items():
        os.environ.setdefault(name, value)
    # Prefect reads its settings when it is imported.
    from prefect.cli import app  # noqa: PLC0415 - as above

    _record_within_fractions_of_a_second()
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    app()


def _record_within_fractions_of_a_second() -> None:
    """Let the recorder of task runs keep to its interval.

    Prefect rounds it down to whole seconds (`int(flush_interval)` in `TaskRunRecorder.start`,
    3.8.8), so that less than one is none at all: the recorder then spins on a whole core.
    """
    from prefect.server.services import task_run_recorder  # noqa: PLC0415 - as in `main`
    from prefect.settings import get_current_settings  # noqa: PLC0415 - as in `main`

    consumer = task_run_recorder.consumer
    interval = get_current_settings().server.services.task_run_recorder.flush_interval

    def consumer_in_time(write_batch_size: int, flush_every: int, **options: Any) -> Any:
        return consumer(write_batch_size, interval, **options)  # type: ignore[arg-type]  # it only sleeps so long

    task_run_recorder.consumer = consumer_in_time  # type: ignore[assignment]  # as it is called


if __name__ == "__main__":
    main()
