"""What the flow is told of a real execution: all of it, in order, and true."""

import re
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from flows.engines.snakemake import SnakemakeEngine
from flows.record.mirror import Mirror
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    Message,
    Outcome,
    PlanCompleted,
    RuleJobDropped,
)
from flows.workspace.workspace import Workspace
from tests.flows.conftest import NewWorkspace
from tests.flows.executions import HERE, NO_SOFTWARE, Run, execute, run, staged, write_workflow
from tests.flows.grammar import assert_well_told
from tests.support import WORKFLOWS


def readme_edges() -> dict[str, set[str]]:
    """What each rule job of `features` depends on, as its README tells."""
    edges: dict[str, set[str]] = {}
    for row in (WORKFLOWS / "features" / "README.md").read_text().splitlines():
        cells = row.strip("|").split("|")
        if len(cells) == 2:
            edges |= {name: set(rule_jobs_in(cells[1])) for name in rule_jobs_in(cells[0])}
    return edges


def rule_jobs_in(cell: str) -> list[str]:
    """`map` a and b: map a, map b."""
    found = []
    for rule, rest in re.findall(r"`(\w+)`([^`]*)", cell):
        wildcards = re.findall(r"\b(\d-of-\d|\d|[ab])\b", rest)
        found += [f"{rule} {wildcard}" for wildcard in wildcards] or [rule]
    return found


def test_the_story_of_features_holds_together_and_ends_well(features: Run) -> None:
    assert_well_told(features.events)
    assert features.exit_code == 0
    assert set(features.outcomes().values()) == {Outcome.SUCCEEDED}
    assert features.outcomes().keys() == features.plan.keys()


def test_the_rule_jobs_and_their_edges_are_those_of_the_readme(features: Run) -> None:
    expected = readme_edges()
    assert len(expected) == 21
    edges = {name: {before for before, after in features.edges if after == name} for name in features.plan}
    assert edges == expected


def test_a_checkpoint_lets_the_plan_grow(features: Run) -> None:
    assert [plan.total for plan in features.of(PlanCompleted)] == [18, 21]


def test_a_plan_tells_files_and_reason(features: Run) -> None:
    planned = features.plan["count_letters a"]
    assert planned.wildcards == {"sample": "a"}
    assert planned.inputs == ("work/a.txt",)
    assert planned.outputs == ("results/counts/a.json",)
    assert planned.logs == ("logs/count_letters/a.log",)
    assert "Missing output files: results/counts/a.json" in planned.reason
    assert not planned.is_done


def test_an_attempt_tells_its_command_and_threads(features: Run) -> None:
    (halve,) = features.started("halve")
    assert halve.shell is not None
    assert halve.shell.startswith("for half in work/halves/1-of-2.txt work/halves/2-of-2.txt; do")
    (count,) = features.started("count_letters a")
    assert (count.threads, count.shell) == (2, None)
    assert "Missing output files" in count.reason


def test_a_retry_is_a_second_attempt(features: Run) -> None:
    first, second = features.finished("succeed_on_second_attempt")
    assert (first.outcome, first.exit_code, first.will_retry) == (Outcome.FAILED, 4, True)
    assert "non-zero exit status 4" in first.message
    assert (second.outcome, second.will_retry, second.attempt) == (Outcome.SUCCEEDED, False, 2)


def test_the_times_of_attempts_are_true(features: Run) -> None:
    for attempt in features.of(AttemptFinished):
        assert features.events[0].time < attempt.started_at < attempt.finished_at <= attempt.time
    ended = {name: features.finished(name)[-1].finished_at for name in features.plan}
    for before, after in features.edges:
        assert ended[before] < features.started(after)[0].time


def test_every_attempt_has_its_own_output(features: Run) -> None:
    assert features.output_of("succeed_on_second_attempt", attempt=1) == "first attempt fails\n"
    assert features.output_of("succeed_on_second_attempt", attempt=2) == "second attempt succeeds\n"
    assert features.output_of("count_letters a") == "counted a with 2 threads\n"
    assert features.output_of("count_letters b") == "counted b with 2 threads\n"
    paths = [started.log_path for started in features.of(AttemptStarted)]
    assert len(set(paths)) == len(paths) == 22


def test_what_snakemake_itself_says_is_told_and_logged(features: Run) -> None:
    said = [message.text for message in features.of(Message)]
    assert "Building DAG of jobs..." in said
    assert "Trying to restart job" in " ".join(said)
    assert {message.level for message in features.of(Message)} == {"INFO"}
    log = features.workspace.snakemake_log.read_text()
    assert "21 of 21 steps (100%) done" in log
    assert "counted a with 2 threads" not in log


def test_a_second_execution_finds_nothing_to_do(features: Run) -> None:
    again = run(staged(features.workspace, WORKFLOWS / "features"), features.workspace)
    assert_well_told(again.events)
    assert again.exit_code == 0
    assert again.plan
    assert all(planned.is_done for planned in again.plan.values())
    assert again.of(AttemptStarted) == []
    assert any("Nothing to be done" in message.text for message in again.of(Message))


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_rule_job_that_waits_for_its_retry_is_not_forgotten_when_a_checkpoint_ends(
    workspace: Workspace, keep_going: bool
) -> None:
    lost = execute(workspace, WORKFLOWS / "lost_retry", cores=3, options={"keep_going": keep_going})
    assert_well_told(lost.events)
    assert lost.exit_code == 0
    (checkpoint,) = lost.finished("split")
    first, second = lost.finished("fail_once")
    assert first.finished_at < checkpoint.finished_at < second.started_at, "the trap was not sprung"
    assert set(lost.outcomes().values()) == {Outcome.SUCCEEDED}
    assert lost.outcomes().keys() == lost.plan.keys()


def test_a_rule_job_that_a_checkpoint_makes_superfluous_is_dropped(
    workspace: Workspace, tmp_path: Path
) -> None:
    workflow = write_workflow(
        tmp_path / "dropping",
        """
        import os

        rule all:
            input: "split", lambda wildcards: "new" if os.path.exists("split") else "old"
            output: "all"
            shell: "touch {output}"

        checkpoint split:
            output: "split"
            shell: "touch {output}"

        rule old:
            input: "split"
            output: "old"
            shell: "touch {output}"

        rule new:
            output: "new"
            shell: "touch {output}"
        """,
    )
    dropping = execute(workspace, workflow)
    assert_well_told(dropping.events)
    assert len(dropping.of(RuleJobDropped)) == 1
    assert dropping.edges == {("split", "new"), ("split", "all"), ("new", "all")}


def test_rule_jobs_that_talk_through_a_pipe_run_side_by_side_with_outputs_of_their_own(
    workspace: Workspace, tmp_path: Path
) -> None:
    workflow = write_workflow(
        tmp_path / "piped",
        """
        rule reader:
            input: "words"
            output: "read.txt"
            shell: "echo 'I read'; cat {input} > {output}"

        rule writer:
            output: pipe("words")
            shell: "echo 'I write'; echo word > {output}"
        """,
    )
    piped = execute(workspace, workflow)
    assert piped.exit_code == 0
    assert (piped.output_of("reader"), piped.output_of("writer")) == ("I read\n", "I write\n")
    assert set(piped.outcomes().values()) == {Outcome.SUCCEEDED}
    assert (workspace.work / "read.txt").read_text() == "word\n"


def test_executions_side_by_side_know_nothing_of_each_other(workspaces: NewWorkspace) -> None:
    made = [workspaces(), workspaces()]
    with ExitStack() as running:
        executions = [
            running.enter_context(
                SnakemakeEngine(HERE, NO_SOFTWARE).start(
                    staged(workspace, WORKFLOWS / "bad_config", config={"threshold": number}), workspace
                )
            )
            for number, workspace in enumerate(made, start=1)
        ]
        for execution in executions:
            assert_well_told(execution.events())
    assert [(workspace.work / "threshold.txt").read_text() for workspace in made] == ["1\n", "2\n"]


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_target_that_a_checkpoint_makes_superfluous_is_done(
    workspace: Workspace, tmp_path: Path, keep_going: bool
) -> None:
    """Snakemake ends with success after 1 of 2 steps."""
    snakefile = """
    rule all:
        input: "a.txt"

    checkpoint a:
        output: "a.txt"
        shell: "touch {output}"
    """
    workflow = write_workflow(tmp_path / "superfluous", snakefile)
    told = execute(workspace, workflow, options={"keep_going": keep_going})
    assert_well_told(told.events)
    assert told.exit_code == 0
    mirror = Mirror(uuid4())
    for event in told.events:
        mirror.observe(event)
    assert mirror.open() == []
    assert {job.name: job.state.name for job in map(mirror.job, range(2)) if job} == {
        "all": "Skipped",
        "a": "Completed",
    }
