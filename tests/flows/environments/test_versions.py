"""Every Snakemake that we name: the mirror's whole story, a failure, and a cancel."""

import time
from functools import cache
from pathlib import Path

import pytest

from flows import diagnosis
from flows.contract.environments import EnvironmentSettings
from flows.contract.spec import EnvironmentSpec
from flows.engines.engine import Execution
from flows.engines.snakemake import SnakemakeEngine
from flows.environments.environment import Environment
from flows.environments.making import Environments
from flows.record.excerpts import tail
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    EngineExited,
    ErrorRaised,
    Message,
    Outcome,
    PlanCompleted,
    WorkflowEvent,
)
from flows.workspace.workspace import Workspace
from tests.conftest import ENVIRONMENTS
from tests.flows.executions import NO_SOFTWARE, Run, staged, write_workflow
from tests.flows.grammar import assert_well_told
from tests.support import WORKFLOWS

VERSIONS = ("8.30.0", "9.0.0", "9.14.0", "9.27.1")


@cache
def environment_of(version: str) -> Environment:
    """Made once for all runs of the tests."""
    environments = Environments(EnvironmentSettings(environments_directory=ENVIRONMENTS), ENVIRONMENTS, print)
    return environments.get(environments.wanted(EnvironmentSpec(packages=(f"snakemake == {version}",))))


def run_in(version: str, workspace: Workspace, workflow: Path, **fields: object) -> Run:
    engine = SnakemakeEngine(environment_of(version), NO_SOFTWARE)
    with engine.start(staged(workspace, workflow, **fields), workspace) as execution:
        return Run(workspace, list(execution.events()))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_feature_workflow_is_told_as_by_the_newest(
    version: str, workspace: Workspace, features: Run
) -> None:
    told = run_in(version, workspace, WORKFLOWS / "features")
    assert_well_told(told.events)
    assert told.exit_code == 0
    assert set(told.plan) == set(features.plan)
    assert told.edges == features.edges
    assert told.outcomes() == features.outcomes()
    assert [event.total for event in told.of(PlanCompleted)] == [
        event.total for event in features.of(PlanCompleted)
    ]
    assert [error.exception for error in told.of(ErrorRaised)] == ["RuleException"], "of the retry"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_failing_rule_has_its_exit_code_and_its_output(version: str, workspace: Workspace) -> None:
    told = run_in(version, workspace, WORKFLOWS / "failing", options={"keep_going": True})
    assert told.exit_code == 1
    (broken,) = told.finished("proceed b")
    assert (broken.outcome, broken.exit_code) == (Outcome.FAILED, 3)
    assert told.output_of("proceed b") == "standard output of branch b\nstandard error of branch b\n"
    assert len(told.of(AttemptFinished)) == 11


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cancel_ends_it_within_seconds(version: str, workspace: Workspace) -> None:
    engine = SnakemakeEngine(environment_of(version), NO_SOFTWARE)
    events: list[WorkflowEvent] = []
    asked_at = 0.0

    def stop_at_first(execution: Execution, event: WorkflowEvent) -> float:
        if isinstance(event, AttemptStarted) and not asked_at:
            execution.terminate()
            return time.monotonic()
        return asked_at

    with engine.start(staged(workspace, WORKFLOWS / "sleeper"), workspace) as execution:
        for event in execution.events():
            events.append(event)
            asked_at = stop_at_first(execution, event)
    assert isinstance(events[-1], EngineExited)
    assert time.monotonic() - asked_at < 10


@pytest.mark.parametrize("version", VERSIONS)
def test_prints_and_mistakes_are_reported_once(version: str, workspace: Workspace, tmp_path: Path) -> None:
    snakefile = """
    print("parsed")
    onerror: print("handled")
    rule one:
        output: ensure("a", non_empty=True)
        shell: ": > {output}"
    """
    told = run_in(version, workspace, write_workflow(tmp_path / "printing", snakefile))
    texts = [message.text.strip() for message in told.of(Message)]
    assert [text for text in texts if text in ("parsed", "handled")] == ["parsed", "handled"]
    assert sum("Building DAG" in text for text in texts) == 1
    (broken,) = told.finished("one")
    assert "unexpected empty output files" in broken.message


@pytest.mark.parametrize("version", VERSIONS)
def test_a_mistake_in_the_syntax_has_its_line(version: str, workspace: Workspace, tmp_path: Path) -> None:
    told = run_in(version, workspace, write_workflow(tmp_path / "typo", "rule a:\n    outptu: 'x'\n"))
    # Snakemake 9.0 reports it before its loggers exist.
    error = diagnosis.of_workflow(told.of(ErrorRaised), 1, tail(workspace.snakemake_log, 20))
    assert "Unexpected keyword outptu" in error.message
    assert "line 2" in error.message
    assert error.section == "syntaxerror"


def test_an_old_scheduler_is_named_in_the_log(workspace: Workspace) -> None:
    told = run_in("9.0.0", workspace, WORKFLOWS / "touch", config={"jobs": 3})
    notes = [message.text for message in told.of(Message) if "use Snakemake 9.14 or newer" in message.text]
    assert len(notes) == 1
