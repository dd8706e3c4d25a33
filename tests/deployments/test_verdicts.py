"""Every pair of what Prefect believes and what ECS says has one verdict, and the right one in time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.objects import TERMINAL_STATES, StateType

from deployments.verdicts import Ending, GracePeriods, Run, Task, Verdict, judge

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECONDS = timedelta(seconds=1)
GRACE = GracePeriods(30 * SECONDS, 120 * SECONDS, 900 * SECONDS, 60 * SECONDS)

LIVES = Task("arn:task", uuid4(), created_at=NOW - 3600 * SECONDS)
STOPPING = replace(LIVES, is_stopping=True)
ENDED = replace(LIVES, stopped_at=NOW - 31 * SECONDS, is_stopping=True, exit_code=0)
JUST_ENDED = replace(ENDED, stopped_at=NOW - 29 * SECONDS)


def run(state: StateType, age: float, **known: object) -> Run:
    return replace(Run(uuid4(), state, NOW - age * SECONDS), **known)  # type: ignore[arg-type]  # by name


def outcome(verdict: Verdict | None) -> tuple[Ending | None, bool] | None:
    return None if verdict is None else (verdict.ending, verdict.stops_task)


CRASHED, CANCELLED = (Ending.CRASHED, False), (Ending.CANCELLED, False)
STOPPED, STOPPED_AND_CRASHED = (None, True), (Ending.CRASHED, True)
STOPPED_AND_CANCELLED = (Ending.CANCELLED, True)
ONLINE = {"worker_is_online": True}
STARTED = {"has_started": True}


@pytest.mark.parametrize(
    ("state", "age", "known", "task", "expected"),
    [
        ("PENDING", 119, {}, None, None),
        ("PENDING", 121, {}, None, CRASHED),
        ("PENDING", 899, ONLINE, None, None),
        ("PENDING", 901, ONLINE, None, CRASHED),
        ("PENDING", 899, {}, LIVES, None),
        ("PENDING", 901, {}, LIVES, STOPPED_AND_CRASHED),
        ("PENDING", 901, {}, STOPPING, None),
        ("PENDING", 60, {}, JUST_ENDED, None),
        ("PENDING", 60, {}, ENDED, CRASHED),
        ("PENDING", 5, {}, ENDED, None),  # maybe of an attempt before this one
        ("PENDING", 31, {}, replace(ENDED, stopped_at=NOW - 32 * SECONDS), CRASHED),
        ("PENDING", 119, {}, replace(ENDED, stopped_at=NOW - 600 * SECONDS), None),
        ("PENDING", 121, {}, replace(ENDED, stopped_at=NOW - 600 * SECONDS), CRASHED),
        ("RUNNING", 10**6, STARTED, LIVES, None),
        ("RUNNING", 10**6, STARTED, STOPPING, None),
        ("RUNNING", 10**6, STARTED, JUST_ENDED, None),
        ("RUNNING", 10**6, STARTED, ENDED, CRASHED),
        ("RUNNING", 29, STARTED, None, None),
        ("RUNNING", 31, STARTED, None, CRASHED),
        ("CANCELLING", 0, {}, None, CANCELLED),
        ("CANCELLING", 0, {}, LIVES, STOPPED_AND_CANCELLED),
        ("CANCELLING", 0, {}, STOPPING, CANCELLED),
        ("CANCELLING", 0, {}, ENDED, CANCELLED),
        ("CANCELLING", 59, STARTED, LIVES, None),
        ("CANCELLING", 61, STARTED, LIVES, STOPPED),
        ("CANCELLING", 61, STARTED, STOPPING, None),
        ("CANCELLING", 61, STARTED, JUST_ENDED, None),
        ("CANCELLING", 61, STARTED, ENDED, CANCELLED),
        ("CANCELLING", 29, STARTED, None, None),
        ("CANCELLING", 31, STARTED, None, CANCELLED),
        ("CRASHED", 0, STARTED, ENDED, CRASHED),
        ("CRASHED", 0, {"is_explained": True}, ENDED, None),
        ("CRASHED", 0, {}, None, None),  # the worker said why it could start none
        ("CRASHED", 0, {**STARTED, "message": "It was interrupted."}, None, CRASHED),
        ("COMPLETED", 29, STARTED, LIVES, None),
        ("COMPLETED", 31, STARTED, LIVES, STOPPED),
        ("FAILED", 31, STARTED, LIVES, STOPPED),
        ("CANCELLED", 31, {}, LIVES, STOPPED),
        ("CANCELLED", 31, {}, STOPPING, None),
        ("COMPLETED", 31, STARTED, ENDED, None),
        ("COMPLETED", 31, STARTED, None, None),
        ("SCHEDULED", 10**6, {}, LIVES, None),
        ("PAUSED", 10**6, STARTED, LIVES, None),
    ],
)
def test_what_is_done(
    state: str, age: float, known: dict[str, object], task: Task | None, expected: object
) -> None:
    assert outcome(judge(run(StateType(state), age, **known), task, GRACE, NOW)) == expected


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (None, None),
        (ENDED, None),
        (STOPPING, None),
        (replace(LIVES, created_at=NOW - 29 * SECONDS), None),
        (LIVES, STOPPED),
    ],
)
def test_a_task_without_a_job(task: Task | None, expected: object) -> None:
    assert outcome(judge(None, task, GRACE, NOW)) == expected


@pytest.mark.parametrize(
    ("task", "said", "to_do"),
    [
        (None, "is gone", "Resume"),
        (
            replace(ENDED, stop_code="TaskFailedToStart", reason="No image."),
            "did not start: No image.",
            "image",
        ),
        (replace(ENDED, stop_code="SpotInterruption", exit_code=1), "Spot", "without `spot`"),
        (replace(ENDED, exit_code=137), "exit code 137", "mem_mb"),
        (replace(ENDED, stop_code="UserInitiated", reason="Why not"), "was stopped: Why not.", "Resume"),
        (ENDED, "exit code 0", "Resume"),
        (replace(ENDED, exit_code=None), "without an exit code", "Resume"),
    ],
)
def test_a_crash_says_why_and_what_to_do(task: Task | None, said: str, to_do: str) -> None:
    verdict = judge(run(StateType.RUNNING, 3600, has_started=True), task, GRACE, NOW)

    assert verdict is not None
    assert said in verdict.message
    assert to_do in verdict.resolution


_MOMENTS = st.integers(0, 5000).map(lambda age: NOW - age * SECONDS)
_RUNS = st.builds(
    Run,
    st.uuids(),
    st.sampled_from(StateType),
    _MOMENTS,
    st.booleans(),
    st.booleans(),
    st.just("said"),
    st.booleans(),
)
_TASKS = st.builds(
    Task,
    st.just("arn:task"),
    st.none(),
    _MOMENTS,
    st.one_of(st.none(), _MOMENTS),
    st.booleans(),
    st.sampled_from(["", "UserInitiated", "TaskFailedToStart", "SpotInterruption"]),
    st.text(max_size=5),
    st.one_of(st.none(), st.integers(0, 255)),
)


@given(st.one_of(st.none(), _RUNS), st.one_of(st.none(), _TASKS))
def test_no_verdict_harms_what_is_well(run: Run | None, task: Task | None) -> None:
    verdict = judge(run, task, GRACE, NOW)

    if verdict is None:
        return
    assert verdict.message
    if verdict.stops_task:
        assert task is not None
        assert task.lives
        assert not task.is_stopping
    if verdict.ending is not None:
        assert run is not None
        assert run.state not in TERMINAL_STATES - {StateType.CRASHED}
        assert (verdict.ending is Ending.CANCELLED) == (run.state is StateType.CANCELLING)
    assert run is None or run.state not in (StateType.SCHEDULED, StateType.PAUSED)


@given(_RUNS, st.one_of(st.none(), _TASKS.filter(lambda task: not task.lives)))
def test_nothing_without_a_task_stays_open_for_ever(run: Run, task: Task | None) -> None:
    verdict = judge(run, task, GRACE, NOW + 10_000 * SECONDS)

    if run.state in (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING):
        assert verdict is not None
        assert verdict.ending is not None
