"""Which runs of a schedule are dropped after an outage: all but the newest. Pure.

Prefect makes the runs of a schedule in advance, and without a worker they wait. A worker that comes back
would run all of them at once.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from operator import attrgetter
from uuid import UUID

from prefect.client.schemas.objects import FlowRun

LATE = timedelta(seconds=15)
"""What waits for less was not missed."""

SKIPPED = "Skipped"
REASON = "A later time of its schedule came before it could start."


def missed(waiting: Iterable[FlowRun], now: datetime) -> list[FlowRun]:
    """Those that are late, and whose schedule has a later one that is due, too."""
    due: dict[tuple[UUID | None, UUID], list[FlowRun]] = {}
    for run in waiting:
        made_by = run.created_by
        if made_by is None or made_by.id is None or made_by.type != "SCHEDULE":
            continue
        if run.expected_start_time is not None and run.expected_start_time <= now:
            due.setdefault((run.deployment_id, made_by.id), []).append(run)
    return [run for runs in due.values() for run in _all_but_the_newest(runs) if _is_late(run, now)]


def _all_but_the_newest(runs: list[FlowRun]) -> list[FlowRun]:
    return sorted(runs, key=attrgetter("expected_start_time"))[:-1]


def _is_late(run: FlowRun, now: datetime) -> bool:
    return run.expected_start_time is not None and now - run.expected_start_time > LATE
