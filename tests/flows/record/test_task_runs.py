"""The contract with Prefect's server: it reads our events as those of its own engine.

Prefect documents neither, so this is checked against the very functions of the server that
record task runs, without running one.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.objects import StateType
from prefect.server.events.schemas.events import Event, ReceivedEvent
from prefect.server.schemas.core import TaskRun
from prefect.server.services.task_run_recorder import task_run_from_event

from flows.contract.spec import Label
from flows.record.task_runs import StateChange, log_entry, state_change_event
from tests.flows.stories import START, Ask, a_mirror, failed, plan_completed, planned, play, started

FLOW_RUN_ID, TASK_RUN_ID = uuid4(), uuid4()


def an_event(state: StateChange, **columns: Any) -> dict[str, Any]:
    task_run = {"name": "map", "task_key": "rule.map", "dynamic_key": "1", "run_count": 1} | columns
    return state_change_event(FLOW_RUN_ID, TASK_RUN_ID, task_run, state)


def recorded(event: dict[str, Any]) -> TaskRun:
    """The task run that Prefect's recorder makes of it."""
    return task_run_from_event(ReceivedEvent.model_validate(Event.model_validate(event).model_dump()))


def test_a_rule_job_is_recorded_with_everything_that_is_known_of_it() -> None:
    mirror = a_mirror()
    plan = [planned(1, "begin"), planned(2, "map", wildcards={"n": "1"}, depends_on=(1,))]
    attempt = started(2, at=3, shell="exit 7")
    play(mirror, *plan, plan_completed(2), Ask(0))
    (told,) = play(mirror, attempt, failed(2, began=3, at=5, exit_code=7), Ask(6))
    task_run = recorded(told)
    job = mirror.job(2)
    assert job is not None
    assert task_run.id == job.task_run_id
    assert task_run.flow_run_id == mirror.flow_run_id
    assert (task_run.name, task_run.task_key, task_run.dynamic_key) == ("map[n=1]", "rule.map", "2")
    assert task_run.tags == ["map"]
    assert task_run.run_count == 1
    assert task_run.start_time == datetime.fromtimestamp(START + 3, UTC)
    assert task_run.end_time == datetime.fromtimestamp(START + 5, UTC)
    assert task_run.total_run_time.total_seconds() == 2
    assert task_run.labels is not None
    assert '"shell":"exit 7"' in str(task_run.labels[Label.RULE_JOB])
    (edge,) = task_run.task_inputs["depends_on"]
    begin = mirror.job(1)
    assert begin is not None
    assert edge.model_dump() == {"input_type": "task_run", "id": begin.task_run_id}
    assert task_run.state is not None
    assert (task_run.state.type, task_run.state.name) == ("FAILED", "Failed")
    assert task_run.state.message == "Its command ended with exit code 7."
    assert task_run.state.timestamp == task_run.end_time


@pytest.mark.parametrize("state_type", StateType)
def test_every_type_of_state_is_recorded_as_it_was_told(state_type: StateType) -> None:
    state = StateChange(state_type, "OfOurOwn", START, "why")
    recorded_state = recorded(an_event(state)).state
    assert recorded_state is not None
    assert (recorded_state.type, recorded_state.name, recorded_state.message) == (
        state_type.value,
        "OfOurOwn",
        "why",
    )


def test_an_event_is_one_of_its_flow_run_and_not_one_of_prefects_own_orchestration() -> None:
    event = Event.model_validate(an_event(StateChange(StateType.RUNNING, "Running", START)))
    assert event.event == "prefect.task-run.Running"
    assert event.resource["prefect.orchestration"] == "client", "the recorder passes over all others"
    assert [(related.role, related.id) for related in event.related] == [
        ("flow-run", f"prefect.flow-run.{FLOW_RUN_ID}")
    ]


def test_the_same_change_is_the_same_event() -> None:
    running = StateChange(StateType.RUNNING, "Running", START)
    ids = [
        an_event(running)["id"],
        an_event(running)["id"],
        an_event(running, run_count=2)["id"],
        an_event(StateChange(StateType.RUNNING, "Running", START + 1))["id"],
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert all(UUID(event_id) for event_id in ids)


@pytest.mark.parametrize("task_run_id", [TASK_RUN_ID, None])
def test_a_log_entry_is_one_that_prefect_takes(task_run_id: UUID | None) -> None:
    entry = LogCreate.model_validate(log_entry(FLOW_RUN_ID, task_run_id, 20, "said", START))
    assert (entry.flow_run_id, entry.task_run_id) == (FLOW_RUN_ID, task_run_id)
    assert entry.timestamp == datetime.fromtimestamp(START, UTC)
    assert (entry.level, entry.message) == (20, "said")
