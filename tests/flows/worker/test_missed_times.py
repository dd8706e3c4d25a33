"""Which runs of a schedule are dropped, as a table."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from flows.worker.missed_times import missed

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
SCHEDULE, OTHER = uuid4(), uuid4()
DEPLOYMENT, FLOW = uuid4(), uuid4()


def run(seconds_late: float, made_by: UUID | None = SCHEDULE, kind: str = "SCHEDULE") -> FlowRun:
    return FlowRun.model_validate(
        {
            "flow_id": FLOW,
            "deployment_id": DEPLOYMENT,
            "expected_start_time": NOW - timedelta(seconds=seconds_late),
            "created_by": None if made_by is None else {"id": made_by, "type": kind},
        }
    )


@pytest.mark.parametrize(
    ("waiting", "dropped"),
    [
        ([], []),
        ([run(3600)], []),
        ([run(3600), run(60), run(1800)], [3600, 1800]),
        ([run(3600), run(60), run(-60)], [3600]),
        ([run(14), run(1)], []),
        ([run(3600), run(60, OTHER)], []),
        ([run(3600, None), run(60, None)], []),
        ([run(3600, OTHER, "USER"), run(60, OTHER, "USER")], []),
    ],
    ids=[
        "nothing waits",
        "one alone runs, however late",
        "the newest runs",
        "what is not due yet is no reason to drop one",
        "what waits for some seconds was not missed",
        "each schedule has its own",
        "what people have submitted stays",
        "what automations have made stays",
    ],
)
def test_all_but_the_newest_late_run_of_a_schedule_are_dropped(
    waiting: list[FlowRun], dropped: list[float]
) -> None:
    found = missed(waiting, NOW)

    assert {run.expected_start_time for run in found} == {NOW - timedelta(seconds=late) for late in dropped}
