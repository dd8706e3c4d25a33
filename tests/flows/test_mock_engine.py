"""The mock engine: no Snakemake, the same story."""

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.contract.field_types import LARGEST_NUMBER
from flows.contract.spec import EngineName, ExecutionSpec
from flows.engines.choice import engine_for
from flows.engines.mock import MockEngine
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    EngineExited,
    ErrorRaised,
    Outcome,
    PlanCompleted,
    RuleJobPlanned,
    WorkflowEvent,
)
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace
from tests.flows.executions import NO_SOFTWARE, Run
from tests.flows.grammar import assert_well_told

WORKSPACE = Workspace(WorkspaceSettings(home=Path("/nonexistent")), uuid4())
SEEDS = st.integers(1 - LARGEST_NUMBER, LARGEST_NUMBER - 1)
AT_ONCE = {"delay_seconds": [0, 0]}


def spec(**mock: Any) -> ExecutionSpec:
    return ExecutionSpec.model_validate({"engine": "mock", "mock": AT_ONCE | mock})


def tell(**mock: Any) -> Run:
    """Everything that the mock engine tells."""
    with MockEngine().start(spec(**mock), WORKSPACE) as execution:
        return Run(WORKSPACE, list(execution.events()))


def plot(events: list[WorkflowEvent]) -> list[tuple[str, int | None, object]]:
    """A story without its times."""
    return [(event.type, getattr(event, "job_id", None), getattr(event, "outcome", None)) for event in events]


def test_the_mock_engine_is_what_its_name_gives() -> None:
    assert isinstance(engine_for(EngineName.MOCK, None, NO_SOFTWARE), MockEngine)


@given(seed=SEEDS, rules=st.integers(1, 30), success_rate=st.floats(0, 1))
def test_its_story_has_the_grammar_of_a_real_execution(seed: int, rules: int, success_rate: float) -> None:
    assert_well_told(tell(seed=seed, rules=rules, success_rate=success_rate).events)


@given(seed=SEEDS, rules=st.integers(1, 10))
def test_the_same_seed_tells_the_same_story(seed: int, rules: int) -> None:
    first, second = (tell(seed=seed, rules=rules, success_rate=0.5) for _ in range(2))
    assert plot(first.events) == plot(second.events)


def test_without_a_seed_stories_differ() -> None:
    assert len({str(plot(tell(rules=10, success_rate=0.5).events)) for _ in range(50)}) > 1


@given(seed=SEEDS)
def test_with_a_success_rate_of_one_every_job_completes(seed: int) -> None:
    run = tell(seed=seed, success_rate=1)
    assert run.exit_code == 0
    assert set(run.outcomes().values()) == {Outcome.SUCCEEDED}
    assert len(run.outcomes()) == len(run.plan) == 4


@given(seed=SEEDS)
def test_with_a_success_rate_of_zero_every_job_fails_in_one_rule_that_an_error_names(seed: int) -> None:
    run = tell(seed=seed, success_rate=0)
    assert run.exit_code == 1
    *others, last = run.outcomes().items()
    assert {outcome for _, outcome in others} <= {Outcome.SUCCEEDED}
    failed_rule, outcome = last
    assert outcome is Outcome.FAILED
    (error,) = run.of(ErrorRaised)
    assert failed_rule in error.text


def test_jobs_succeed_as_often_as_asked_for() -> None:
    successes = sum(tell(seed=seed, success_rate=0.8, rules=1).exit_code == 0 for seed in range(500))
    assert 0.7 < successes / 500 < 0.9


def test_the_rule_jobs_form_a_chain() -> None:
    run = tell(rules=3, success_rate=1)
    assert run.edges == {("step_0", "step_1"), ("step_1", "step_2")}
    assert [type(event) for event in run.events[1:5]] == [*[RuleJobPlanned] * 3, PlanCompleted]
    assert [event.job_id for event in run.of(AttemptStarted)] == [0, 1, 2]


@pytest.mark.parametrize("success_rate", [1, 0], ids=["succeeding", "failing"])
def test_a_job_lasts_as_long_as_asked_for_whatever_becomes_of_it(success_rate: float) -> None:
    for seed in range(3):
        began = time.monotonic()
        tell(seed=seed, success_rate=success_rate, rules=3, delay_seconds=[0.2, 0.3])
        assert 0.2 <= time.monotonic() - began < 0.6


def test_a_terminated_job_ends_at_once_and_well_told() -> None:
    events: list[WorkflowEvent] = []
    with MockEngine().start(spec(delay_seconds=[3600, 3600]), WORKSPACE) as execution:
        began = time.monotonic()
        for event in execution.events():
            events.append(event)
            if isinstance(event, AttemptStarted):
                execution.terminate()
    assert time.monotonic() - began < 2
    assert_well_told(events)
    run = Run(WORKSPACE, events)
    assert [event.outcome for event in run.of(AttemptFinished)] == [Outcome.FAILED]
    assert run.exit_code != 0


def test_a_job_that_is_terminated_before_it_is_followed_ends_at_once() -> None:
    with MockEngine().start(spec(delay_seconds=[3600, 3600]), WORKSPACE) as execution:
        execution.terminate()
        events = list(execution.events())
    assert isinstance(events[-1], EngineExited)
    assert_well_told(events)
