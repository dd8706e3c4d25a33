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


FUTURE = "os.utime('old.txt', (2051222400, 2051222400))"


@pytest.mark.parametrize(
    ("snakefile", "guilty", "said", "advised"),
    [
        (
            "rule one:\n    output: 'a'\n    shell: \"awk '{print $1}' b > {output}\"\n",
            "one",
            "NameError: The name 'print $1' is unknown",
            "{{print $1}}",
        ),
        (
            "rule one:\n    output: 'a'\n    resources: mem_mb=lambda w: {}['nokey']\n    shell: 'touch a'\n",
            "one",
            "KeyError: 'nokey'",
            "the function",
        ),
        (
            "rule one:\n    output: ensure('a', non_empty=True)\n    shell: ': > {output}'\n",
            "one",
            "unexpected empty output files",
            "non_empty",
        ),
        (
            f"import os\nopen('old.txt', 'w').close()\n{FUTURE}\n"
            "rule one:\n    input: 'old.txt'\n    output: 'a'\n    shell: 'touch {output}'\n",
            "one",
            "older modification time",
            "`touch`",
        ),
        (
            "rule one:\n    output: 'a' * 300\n    shell: 'touch {output}'\n",
            "one",
            "File name too long",
            "255 bytes",
        ),
        (
            "rule one:\n    output: 'a'\n    run: raise ValueError('in the block')\n",
            "one",
            'in file "Snakefile", line 3:\nin the block',
            "log",
        ),
        (
            "rule one:\n    outptu: 'a'\n",
            None,
            'SyntaxError in file "Snakefile", line 2:\nUnexpected keyword outptu',
            "line in the message",
        ),
        (
            "rule one\n    output: 'a'\n",
            None,
            'SyntaxError in file "Snakefile", line 1:',
            "line in the message",
        ),
        (
            "rule one:\n    output: 'a'\n    script: 'scripts/none.py'\n",
            None,
            "FileNotFoundError: [Errno 2] No such file or directory: 'scripts/none.py'",
            "correct its path",
        ),
    ],
    ids=[
        "a name in braces",
        "a function raises",
        "an empty output",
        "an input of the future",
        "a name that is too long",
        "a run block",
        "an unknown keyword",
        "no colon",
        "a script that is missing",
    ],
)
def test_what_snakemake_rejects_is_told_with_the_rule_and_the_remedy(
    jobs: JobsClient, tmp_path: Path, snakefile: str, guilty: str | None, said: str, advised: str
) -> None:
    (tmp_path / "Snakefile").write_text(snakefile)

    job = jobs.wait(jobs.submit(workflow={"path": str(tmp_path)}), "failed", seconds=30)

    error = job["error"]
    assert (error["kind"], error["rule"]) == ("workflow", guilty)
    assert said in error["message"]
    assert advised in error["resolution"]
    assert list(jobs.statuses(job["id"]).values()) == ([] if guilty is None else ["failed"])
    everything = error["message"] + "".join(jobs.log(job["id"], task["id"]) for task in jobs.tasks(job["id"]))
    assert f"/{job['id']}/" not in everything, "the server's own paths are nobody's business"


def test_what_a_snakefile_logs_before_it_gives_up_is_told_once(jobs: JobsClient, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        "from snakemake.logging import logger\nlogger.error('no column of barcodes')\nraise SystemExit(1)\n"
    )

    job = jobs.wait(jobs.submit(workflow={"path": str(tmp_path)}), "failed", seconds=30)

    assert job["error"]["message"] == "no column of barcodes"
    assert jobs.log(job["id"]).count("no column of barcodes") == 1


@pytest.mark.parametrize("preamble", ["", "workdir: 'below'\n"], ids=["at the top", "below a workdir"])
def test_an_output_outside_of_the_jobs_directory_is_said_not_to_be_published(
    jobs: JobsClient, tmp_path: Path, preamble: str
) -> None:
    elsewhere = tmp_path / "elsewhere.txt"
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "Snakefile").write_text(
        f"{preamble}rule one:\n    output: '{elsewhere}', 'here.txt'\n    shell: 'touch {{output}}'\n"
    )

    job = jobs.wait(jobs.submit(workflow={"path": str(tmp_path / "flow")}), "completed", seconds=30)

    assert len(list(jobs.items(f"/jobs/{job['id']}/outputs"))) == 1
    assert f"outside of the job's directory: {elsewhere}." in jobs.log(job["id"])
    (task,) = jobs.tasks(job["id"])
    assert str(elsewhere) in task["outputs"]
