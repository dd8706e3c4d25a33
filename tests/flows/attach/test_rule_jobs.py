"""What an attached run tells Prefect about a rule job is what the service tells of its own."""

import json
from uuid import uuid4

from prefect.client.schemas.objects import StateType

from flows.attach.snakemake_logger_plugin_prefect import flow_run, run, task_runs
from flows.attach.snakemake_logger_plugin_prefect.rule_job import RECORD, Attempt, Planned
from flows.attach.snakemake_logger_plugin_prefect.rule_jobs import RuleJobs
from flows.contract.spec import ATTACHED_GROUP, FLOW_NAME, Label, RuleJobRecord
from flows.record import task_runs as of_the_service

RUN_ID = uuid4()
NOW = 1_700_000_000.0
COLUMNS = {"name": "map", "task_key": "rule.map", "dynamic_key": "1", "run_count": 2}


def told(jobs: RuleJobs, now: float = NOW + 100) -> dict[str, str]:
    """The states that are due, by name of the rule job."""
    events = jobs.due(RUN_ID, now, 1000)
    return {
        event["resource"]["prefect.resource.name"]: event["resource"]["prefect.state-name"]
        for event in events
    }


def two_jobs() -> RuleJobs:
    jobs = RuleJobs()
    first = Planned(job_id=1, rule="map", wildcards={"n": "1"}, outputs=("1.bam",))
    jobs.plan([first, Planned(job_id=2, rule="all", depends_on=(1,), inputs=("1.bam",))], NOW)
    return jobs


def test_both_make_the_same_events_and_log_entries() -> None:
    task_run_id = of_the_service.task_run_id_of(RUN_ID, 1)
    assert task_runs.task_run_id_of(RUN_ID, 1) == task_run_id
    theirs = of_the_service.StateChange(StateType.FAILED, "Failed", NOW, "It failed.")
    ours = task_runs.State("FAILED", "Failed", NOW, "It failed.")
    assert task_runs.state_change_event(
        RUN_ID, task_run_id, COLUMNS, ours
    ) == of_the_service.state_change_event(RUN_ID, task_run_id, COLUMNS, theirs)
    assert task_runs.task_inputs([task_run_id]) == of_the_service.task_inputs([task_run_id])
    assert task_runs.log_entry(RUN_ID, None, 20, "text", NOW) == of_the_service.log_entry(
        RUN_ID, None, 20, "text", NOW
    )


def test_both_use_the_same_names() -> None:
    assert (flow_run.FLOW_NAME, flow_run.ATTACHED_GROUP) == (FLOW_NAME, ATTACHED_GROUP)
    assert {run.ATTACHED, RECORD} == {Label.ATTACHED, Label.RULE_JOB}
    failed = run.Run()
    failed.fail("because")
    labels = {*failed.labels(), *failed.close(NOW).labels}
    assert labels <= {label.value for label in Label}


def test_the_record_of_a_rule_job_is_one_that_the_service_reads() -> None:
    jobs = two_jobs()
    attempt = Attempt(time=NOW, number=2, threads=4, resources={"mem_mb": 10}, reason="why", shell="true")
    jobs.start(1, attempt)
    jobs.submit(1, "4711")
    jobs.fail(1, NOW + 3, "It failed.", will_retry=False)
    (event,) = [
        each for each in jobs.due(RUN_ID, NOW + 9, 10) if "map" in each["resource"]["prefect.resource.name"]
    ]
    columns = event["payload"]["task_run"]
    record = RuleJobRecord.model_validate_json(columns["labels"][RECORD])
    assert (record.rule, record.wildcards, record.threads) == ("map", {"n": "1"}, 4)
    assert (record.resources, record.reason, record.shell) == ({"mem_mb": 10}, "why", "true")
    assert (record.outputs, record.error, record.external_id) == (("1.bam",), "It failed.", "4711")
    assert (columns["run_count"], columns["total_run_time"]) == (2, 3.0)


def test_only_the_newest_state_is_sent_and_short_ones_are_never_shown_as_running() -> None:
    jobs = two_jobs()
    assert told(jobs) == {"map[n=1]": "Pending", "all": "Pending"}
    jobs.start(1, Attempt(time=NOW))
    assert told(jobs, NOW + 0.5) == {}
    assert told(jobs, NOW + 1.5) == {"map[n=1]": "Running"}
    jobs.fail(1, NOW + 2, "It failed.", will_retry=True)
    jobs.start(1, Attempt(time=NOW + 3, number=2))
    jobs.succeed(1, NOW + 4)
    assert told(jobs) == {"map[n=1]": "Completed"}
    assert jobs.unsent() == 0


def test_a_stop_cancels_also_what_its_signal_has_ended_just_before() -> None:
    jobs = two_jobs()
    jobs.start(1, Attempt(time=NOW))
    jobs.fail(1, NOW + 1, "Its command was killed by signal 2.", will_retry=False)
    jobs.close(NOW + 2, is_stopped=True)
    assert told(jobs) == {"map[n=1]": "Cancelled", "all": "NotRun"}


def test_what_a_checkpoint_replaces_does_not_count() -> None:
    jobs = two_jobs()
    jobs.plan([Planned(job_id=2, rule="all"), Planned(job_id=3, rule="new", is_done=True)], NOW + 1)
    assert told(jobs) == {"map[n=1]": "NotRun", "all": "Pending", "new": "Skipped"}
    assert jobs.progress() == (1, 2)


def test_what_the_server_has_lost_is_a_new_state_when_it_is_sent_again() -> None:
    jobs = two_jobs()
    first = {event["id"] for event in jobs.due(RUN_ID, NOW, 10)}
    jobs.resend(RUN_ID, {task_runs.task_run_id_of(RUN_ID, 1)})
    (again,) = jobs.due(RUN_ID, NOW, 10)
    assert again["resource"]["prefect.resource.name"] == "all"
    assert again["id"] not in first


def test_the_columns_are_json() -> None:
    assert json.dumps(two_jobs().due(RUN_ID, NOW, 10))
