"""Starts the Prefect server, tuned for jobs of many rule jobs: `python -m deployments.server --host …`.

It takes the options of `prefect server start`. The tuning sets variables of Prefect's own that are not
set already.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

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
    # A job that waits in a full group is not late, and marking it Late costs a change of state.
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


if __name__ == "__main__":
    main()
