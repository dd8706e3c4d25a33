"""How a run is followed where nothing but Snakemake's records is known of it."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from flows.attach.snakemake_logger_plugin_prefect.attachment import SNAKEMAKES_LOGGER, Attachment
from flows.attach.snakemake_logger_plugin_prefect.run import Run

LOGGER = logging.getLogger(SNAKEMAKES_LOGGER)


class Followed:
    """A run, and whether it has begun and ended."""

    def __init__(self) -> None:
        self.run = Run()
        self.steps: list[str] = []
        self.attachment = Attachment(
            self.run, lambda: self.steps.append("begun"), lambda: self.steps.append("ended")
        )


@pytest.fixture
def followed() -> Iterator[Followed]:
    LOGGER.setLevel(logging.INFO)
    followed = Followed()
    yield followed
    followed.attachment.close()


def log(event: LogEvent | None, text: str | None = None, level: int = logging.INFO, **extra: Any) -> None:
    LOGGER.log(level, text, extra={"event": event, **extra})


def begin(job_id: int, rule: str, inputs: list[str], outputs: list[str]) -> None:
    details: dict[str, Any] = {"wildcards": {}, "threads": 1, "reason": "", "log": [], "shellcmd": "x"}
    details |= {"resources": {"_cores": 1, "mem_mb": 7}, "input": inputs, "output": outputs}
    log(LogEvent.JOB_INFO, jobid=job_id, rule_name=rule, **details)


def test_without_a_plan_rule_jobs_appear_when_they_begin_with_edges_by_their_files(
    followed: Followed,
) -> None:
    log(LogEvent.WORKFLOW_STARTED)
    assert followed.steps == []
    begin(1, "make", [], ["a.txt"])
    log(LogEvent.JOB_FINISHED, job_id=1)
    begin(2, "use", ["a.txt"], ["b.txt"])
    log(LogEvent.ERROR, "CalledProcessError: returned non-zero exit status 3.", exception="RuleException")
    log(LogEvent.JOB_ERROR, jobid=2, rule_msg=None)
    followed.attachment.close()

    assert followed.steps == ["begun", "ended"]
    make, use = followed.run.rule_jobs.due(uuid4(), 1e12, 10)
    (edge,) = use["payload"]["task_run"]["task_inputs"]["depends_on"]
    assert make["resource"]["prefect.resource.id"].endswith(edge["id"])
    assert make["resource"]["prefect.state-name"] == "Completed"
    ending = followed.run.close(1e9)
    assert (ending.type, ending.message) == ("FAILED", "use failed: Its command ended with exit code 3.")


@pytest.mark.parametrize(
    "text",
    [
        "Submitted job 1 with external jobid '17.b'.",
        "Job 1 has been submitted with SLURM jobid 17.b (log: x).",
    ],
)
def test_what_a_cluster_calls_a_rule_job_is_known(text: str, followed: Followed) -> None:
    begin(1, "make", [], [])
    log(None, text)
    (event,) = followed.run.rule_jobs.due(uuid4(), 1e12, 10)
    assert '"external_id": "17.b"' in event["payload"]["task_run"]["labels"]["snakemake.rule-job"]


def test_a_snakemake_that_only_lists_something_is_no_run(followed: Followed) -> None:
    log(None, "some rules")
    followed.attachment.close()
    assert followed.steps == []


def test_an_error_before_the_workflow_is_known_is_a_run_that_failed(followed: Followed) -> None:
    log(LogEvent.ERROR, "SyntaxError in line 2", logging.ERROR, exception="SyntaxError")
    followed.attachment.close()
    assert followed.steps == ["begun", "ended"]
    ending = followed.run.close(0)
    assert (ending.type, ending.message) == ("FAILED", "SyntaxError in line 2")


def test_a_fault_of_ours_ends_the_record_and_not_the_workflow(
    followed: Followed, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(1, "make", [], [])
    log(LogEvent.JOB_FINISHED, job_id="not a number")
    log(LogEvent.JOB_FINISHED, job_id="not a number")
    assert capsys.readouterr().err.count("Prefect: ") == 1
    followed.attachment.close()
    assert followed.run.close(0).type == "CRASHED"


def test_secrets_that_this_process_knows_are_not_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_1234567890")
    monkeypatch.setenv("LAB_PASSWORD", "correct horse")
    followed = Followed()
    followed.run.hide(["LAB_PASSWORD", "NOT_SET"])
    log_file = tmp_path / "rule.log"
    log_file.write_text("the password is correct horse\n")
    begin(1, "make", [], [])
    followed.run.log(logging.INFO, "key pnu_1234567890", 0)
    followed.attachment.close()
    job = followed.run.rule_jobs.succeed(1, 0)
    assert job is not None
    assert job.attempt is not None
    object.__setattr__(job.attempt, "log_files", (str(log_file),))
    followed.run.entries.end(job)

    texts = "\n".join(entry["message"] for entry in followed.run.entries.take(uuid4(), 100))
    assert "key ***" in texts
    assert "the password is ***" in texts
    assert os.environ["PREFECT_API_KEY"] not in texts
