"""What the flow is told when a workflow fails: which rule job, how, and what never ran."""

from pathlib import Path
from uuid import uuid4

import pytest

from flows import diagnosis
from flows.record.mirror import Ending, Mirror
from flows.snakemake_process.events import ErrorRaised, Outcome
from flows.workspace.workspace import Workspace
from tests.flows.executions import execute, run, staged, write_workflow
from tests.flows.grammar import assert_well_told
from tests.support import WORKFLOWS


def test_without_keep_going_nothing_new_starts_after_a_failure(workspace: Workspace) -> None:
    failing = execute(workspace, WORKFLOWS / "failing", cores=1)
    assert_well_told(failing.events)
    assert failing.exit_code == 1
    (broken,) = failing.finished("proceed b")
    assert (broken.outcome, broken.exit_code, broken.will_retry) == (Outcome.FAILED, 3, False)
    assert failing.output_of("proceed b") == "standard output of branch b\nstandard error of branch b\n"
    assert not any(name.startswith(("finish", "join")) for name in failing.outcomes())
    assert not (workspace.work / "work" / "b.proceeded").exists()


def test_with_keep_going_everything_that_can_run_runs(workspace: Workspace) -> None:
    failing = execute(workspace, WORKFLOWS / "failing", options={"keep_going": True})
    assert_well_told(failing.events)
    assert failing.exit_code == 1
    assert set(failing.plan) - set(failing.outcomes()) == {"finish b", "join"}
    unsuccessful = {name for name, outcome in failing.outcomes().items() if outcome is Outcome.FAILED}
    assert unsuccessful == {"proceed b"}


def test_a_second_execution_shows_only_its_own_output(workspace: Workspace) -> None:
    spec = staged(workspace, WORKFLOWS / "failing", cores=1)
    run(spec, workspace)
    again = run(spec, workspace)
    assert again.output_of("proceed b") == "standard output of branch b\nstandard error of branch b\n"


def test_a_retry_that_snakemake_promises_and_then_gives_up_leaves_no_riddle(
    workspace: Workspace, tmp_path: Path
) -> None:
    workflow = write_workflow(
        tmp_path / "given_up",
        """
        rule all:
            input: "a", "b"

        rule retried:
            output: "a"
            retries: 9
            threads: 2
            shell: "touch began; sleep 0.3; exit 5"

        rule broken:
            output: "b"
            shell: "until [ -e began ]; do sleep 0.01; done; exit 6"
        """,
    )
    given_up = execute(workspace, workflow, cores=3)
    assert_well_told(given_up.events)
    mirror = Mirror(uuid4())
    for event in given_up.events:
        mirror.observe(event)
    mirror.close(Ending.FINISHED, given_up.events[-1].time)
    assert {job.name: job.state.message for job in mirror.failures()} == {
        "retried": "Its command ended with exit code 5.",
        "broken": "Its command ended with exit code 6.",
    }


@pytest.mark.parametrize(
    ("workflow", "fields", "exception", "part", "advice"),
    [
        ("syntax_error", {}, "SyntaxError", "line 4", "Correct the Snakefile"),
        ("missing_input", {}, "MissingInputException", "nobody_makes_this.txt", "missing"),
        ("bad_config", {"config": {"threshold": "high"}}, "WorkflowError", "not of type", "schema"),
        ("bad_config", {"targets": ["nope"]}, "MissingRuleException", "nope", "`targets`"),
    ],
)
def test_a_workflow_that_cannot_run_says_why_before_any_rule_job(
    workspace: Workspace, workflow: str, fields: dict[str, object], exception: str, part: str, advice: str
) -> None:
    broken = execute(workspace, WORKFLOWS / workflow, **fields)
    assert_well_told(broken.events)
    assert broken.exit_code == 1
    assert broken.plan == {}
    errors = broken.of(ErrorRaised)
    assert errors[0].exception == exception
    assert part in errors[0].text
    assert advice in diagnosis.of_workflow(errors, 1, "").resolution


def test_a_snakefile_that_gives_up_with_a_word_has_its_word_in_the_log(
    workspace: Workspace, tmp_path: Path
) -> None:
    workflow = write_workflow(tmp_path / "giving_up", "import sys\nsys.exit('config needs samples')\n")
    assert execute(workspace, workflow).exit_code == 1
    assert "config needs samples" in workspace.snakemake_log.read_text()


def test_an_attempt_that_was_made_good_is_not_blamed_for_a_later_error(
    workspace: Workspace, tmp_path: Path
) -> None:
    workflow = write_workflow(
        tmp_path / "late",
        """
        rule collect:
            input: lambda wildcards: checkpoints.split.get().output[0] + ".nobody_makes_this"
            output: "collected"
            shell: "touch {output}"

        checkpoint split:
            input: "retried"
            output: "split"
            shell: "touch {output}"

        rule retry:
            output: "retried"
            retries: 1
            shell: "[ -e mark ] || (touch mark; false); touch {output}"
        """,
    )
    late = execute(workspace, workflow)
    assert late.exit_code == 1
    assert set(late.outcomes().values()) == {Outcome.SUCCEEDED}
    error = diagnosis.of_workflow(late.of(ErrorRaised), late.exit_code, "")
    assert "nobody_makes_this" in error.message


def test_a_command_that_succeeds_without_its_output_has_failed(workspace: Workspace) -> None:
    missing = execute(workspace, WORKFLOWS / "missing_output")
    assert_well_told(missing.events)
    assert missing.exit_code == 1
    (promise,) = missing.finished("promise")
    assert (promise.outcome, promise.exit_code) == (Outcome.FAILED, None)
    assert "use" not in missing.outcomes()
    assert missing.of(ErrorRaised)[0].exception == "MissingOutputException"
