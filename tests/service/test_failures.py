"""A failed job names the rule, shows its own words, and says what to do; nothing stays open."""

from pathlib import Path
from typing import Any

import pytest

from tests.support import JobsClient


def test_a_failing_rule_fails_the_job_and_names_the_rule(jobs: JobsClient) -> None:
    job = jobs.wait(jobs.submit_workflow("failing", cores=1), "failed")

    error = job["error"]
    assert (error["kind"], error["rule"]) == ("workflow", "proceed[branch=b]")
    assert "exit code 3" in error["message"]
    assert "standard output of branch b" in error["message"]
    assert "standard error of branch b" in error["message"]
    assert "log" in error["resolution"]


def test_what_never_ran_because_of_a_failure_ends_too(jobs: JobsClient) -> None:
    job = jobs.wait(jobs.submit_workflow("failing", cores=1), "failed")

    statuses = jobs.statuses(job["id"])

    assert len(statuses) == 13
    assert statuses["proceed[branch=b]"] == "failed"
    assert statuses["join"] == "cancelled"
    assert not {"pending", "running"} & set(statuses.values())


def test_with_keep_going_the_other_branches_complete(jobs: JobsClient) -> None:
    job = jobs.wait(jobs.submit_workflow("failing", options={"keep_going": True}), "failed")

    statuses = jobs.statuses(job["id"])

    not_completed = {name: status for name, status in statuses.items() if status != "completed"}
    assert not_completed == {
        "proceed[branch=b]": "failed",
        "finish[branch=b]": "cancelled",
        "join": "cancelled",
    }
    assert job["progress"] == {"done": 10, "total": 13}


def test_retries_that_fail_are_all_in_the_log(jobs: JobsClient) -> None:
    job = jobs.wait(jobs.submit_workflow("failing", cores=1, options={"retries": 2}), "failed")

    failed = jobs.tasks(job["id"], status="failed")

    assert [(task["name"], task["attempts"]) for task in failed] == [("proceed[branch=b]", 3)]
    log = jobs.log(job["id"], failed[0]["id"])
    assert all(f"Attempt {number} failed" in log for number in (1, 2, 3))
    assert "after 3 attempts" in job["error"]["message"]


def test_what_a_failing_rule_has_written_may_be_anything(jobs: JobsClient, tmp_path: Path) -> None:
    """As of a command that writes a BAM file to its standard output."""
    (tmp_path / "Snakefile").write_text(
        "rule view:\n    output: 'a.bam'\n    shell: r\"printf 'BAM\\000\\377\\001 exit code 9'; exit 4\"\n"
    )

    job = jobs.wait(jobs.submit(workflow={"path": str(tmp_path)}), "failed", seconds=30)

    assert (job["error"]["kind"], job["error"]["rule"]) == ("workflow", "view")
    assert "exit code 4" in job["error"]["message"]
    assert "BAM\ufffd" in job["error"]["message"]


def test_of_a_group_the_rule_that_failed_is_named(jobs: JobsClient, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        "rule reader:\n    input: 'a'\n    output: 'b'\n    shell: 'cat {input}; sleep 0.5; exit 3'\n"
        "rule writer:\n    output: pipe('a')\n    shell: 'echo > {output}'\n"
    )

    job = jobs.wait(jobs.submit(workflow={"path": str(tmp_path)}, cores=2), "failed", seconds=30)

    assert job["error"]["rule"] == "reader"
    assert "exit code 3" in job["error"]["message"]
    (writer,) = jobs.tasks(job["id"], rule="writer")
    assert writer["error"] == "Another rule job of its group failed."


@pytest.mark.parametrize(
    ("workflow", "spec", "said", "advised"),
    [
        ("syntax_error", {}, "line 4", "Correct the Snakefile"),
        ("missing_input", {}, "nobody_makes_this.txt", "missing files"),
        ("missing_output", {}, "promised.txt", "output"),
        ("bad_config", {"config": {"threshold": "high"}}, "'high' is not of type 'integer'", "`config`"),
        ("touch", {"targets": ["no_such_rule"]}, "no_such_rule", "`targets`"),
    ],
)
def test_a_mistake_in_the_workflow_is_told_in_its_own_terms(
    jobs: JobsClient, workflow: str, spec: dict[str, Any], said: str, advised: str
) -> None:
    job = jobs.wait(jobs.submit_workflow(workflow, **spec), "failed")

    assert job["error"]["kind"] == "workflow"
    assert said in job["error"]["message"]
    assert advised in job["error"]["resolution"]
    assert "/jobs/" not in job["error"]["message"], "the server's own paths are nobody's business"


def test_a_job_that_takes_too_long_is_stopped(jobs: JobsClient) -> None:
    job = jobs.wait(jobs.submit_workflow("sleeper", timeout_seconds=2), "failed", seconds=20)

    assert "timeout_seconds" in job["error"]["message"]
    assert set(jobs.statuses(job["id"]).values()) == {"cancelled"}
