"""What Prefect is told of rule jobs: the truth, in as few states as tell it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import pytest

import flows.record.mirror
from flows.contract.manifest import FileKind
from flows.contract.spec import Label
from flows.record.mirror import Ending, Mirror
from flows.record.task_runs import task_run_id_of
from flows.snakemake_process.events import ErrorRaised, Message, RuleJobDropped
from tests.flows.stories import (
    START,
    STOP,
    Ask,
    Step,
    a_mirror,
    failed,
    plan_completed,
    planned,
    play,
    started,
    state_of,
    states_of,
    submitted,
    succeeded,
    task_run_of,
)

STORIES: dict[str, Sequence[Step]] = {
    "planned": [planned(), plan_completed(), Ask(0)],
    "waits on a cluster": [planned(), submitted(at=1), Ask(2)],
    "runs for longer than `shown_as_running`": [
        planned(),
        started(at=1),
        Ask(1.9),
        Ask(2.1),
        failed(at=3, will_retry=True),
        started(attempt=2, at=4),
        Ask(5.1),
    ],
    "succeeded": [planned(), started(), succeeded(), Ask(3)],
    "outputs were up to date": [planned(is_done=True), Ask(0)],
    "failed for the last time": [planned(), started(), failed(), Ask(3)],
    "was running when the job was stopped": [planned(), started(), STOP, failed(), Ask(3)],
    "was running when the engine vanished": [planned(), started(), Ending.CRASHED, Ask(9)],
    "never ran": [planned(), Ending.FINISHED, Ask(9)],
}
"""How each row of the table in the docstring of `flows.record.mirror` comes about."""


def table() -> dict[str, str]:
    """Task-run states by what happens to a rule job, from the docstring of `flows.record.mirror`."""
    lines = (flows.record.mirror.__doc__ or "").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {happening: states for happening, states in cells[1:]}


def test_every_row_of_the_table_is_played() -> None:
    assert set(STORIES) == set(table())


@pytest.mark.parametrize("happening", STORIES)
def test_a_rule_job_is_told_as_the_table_says(happening: str) -> None:
    assert ", later ".join(states_of(play(a_mirror(), *STORIES[happening]))) == table()[happening]


def test_a_rule_job_on_a_cluster_says_where_it_waits_and_where_it_runs() -> None:
    waits, runs = play(
        a_mirror(),
        planned(),
        submitted(at=1, queue_reason="Priority"),
        Ask(2),
        replace(started(at=3), host="node07"),
        Ask(5),
    )
    assert waits["resource"]["prefect.state-message"] == "In the queue of slurm as job 42: Priority."
    record = json.loads(task_run_of(waits)["labels"][Label.RULE_JOB])
    assert (record["external_id"], record["waiting"], record.get("host")) == ("42", "Priority", None)
    record = json.loads(task_run_of(runs)["labels"][Label.RULE_JOB])
    assert (record["external_id"], record.get("waiting"), record["host"]) == ("42", None, "node07")


def test_a_reason_to_wait_that_comes_late_changes_nothing() -> None:
    told = play(a_mirror(), planned(), submitted(at=1), started(at=2), submitted(at=3), Ask(4))
    assert states_of(told) == ["Running"]


def test_a_short_rule_job_is_told_once_at_its_end_with_its_true_times() -> None:
    (told,) = play(a_mirror(), planned(), started(at=1), Ask(1.5), succeeded(began=1, at=1.75), Ask(2))
    columns = task_run_of(told)
    assert (columns["start_time"], columns["end_time"]) == (
        "2025-10-09T08:53:21+00:00",
        "2025-10-09T08:53:21.750000+00:00",
    )
    assert columns["total_run_time"] == 0.75
    assert told["occurred"] == columns["end_time"]


def test_what_runs_is_told_with_what_has_ended_when_states_are_sent_seldom() -> None:
    mirror = a_mirror()
    play(mirror, planned(1), planned(2), Ask(0), started(1), succeeded(1, at=2), started(2, at=2))

    told = mirror.due(START + 2.1, limit=10, shown_as_running=0)

    assert states_of(told) == ["Completed", "Running"]


def test_between_two_looks_only_the_newest_state_is_kept() -> None:
    story: list[Step] = [planned(), started(at=1), failed(at=2, will_retry=True), started(attempt=2, at=3)]
    assert states_of(play(a_mirror(), *story, succeeded(attempt=2, began=3, at=4), Ask(9))) == ["Completed"]


def test_a_state_is_newer_than_the_one_before_though_the_clock_steps_back() -> None:
    """Prefect's server passes over what is older than what it knows."""
    told = play(a_mirror(), planned(), Ask(1), started(at=2), Ask(9), succeeded(began=2, at=1), Ask(9))
    moments = [datetime.fromisoformat(event["occurred"]) for event in told]
    assert moments == sorted(set(moments))
    assert states_of(told) == ["Pending", "Running", "Completed"]


def test_a_state_is_told_once() -> None:
    mirror = a_mirror()
    assert len(play(mirror, planned(), started(), succeeded(), Ask(3))) == 1
    assert play(mirror, Ask(4)) == []
    assert not mirror.has_unreported


def test_retries_are_runs_of_the_same_task_run() -> None:
    told = play(
        a_mirror(),
        planned(),
        started(at=1),
        failed(at=2, will_retry=True, exit_code=4),
        Ask(2.5),
        started(attempt=2, at=3),
        Ask(4.5),
        succeeded(attempt=2, began=3, at=5),
        Ask(6),
    )
    assert states_of(told) == ["AwaitingRetry (SCHEDULED)", "Retrying", "Completed"]
    assert len({event["resource"]["prefect.resource.id"] for event in told}) == 1
    assert [task_run_of(event)["run_count"] for event in told] == [1, 2, 2]
    assert "exit code 4" in told[0]["payload"]["validated_state"]["message"]


def test_the_same_rule_job_of_the_same_job_is_the_same_task_run_in_another_process() -> None:
    flow_run_id = UUID("11111111-1111-4111-8111-111111111111")
    (told,) = play(Mirror(flow_run_id), planned(7), plan_completed(), Ask(0))
    assert told["resource"]["prefect.resource.id"] == f"prefect.task-run.{task_run_id_of(flow_run_id, 7)}"
    assert str(task_run_id_of(flow_run_id, 7)) == "fcb1a9d8-2c7e-5c87-909f-87f93155b650"


def test_no_more_is_due_at_once_than_asked_for_and_first_come_is_first_told() -> None:
    mirror = a_mirror()
    play(mirror, *(planned(job_id) for job_id in range(7)), plan_completed(7))
    batches = [mirror.due(START, limit=3) for _ in range(4)]
    assert [len(batch) for batch in batches] == [3, 3, 1, 0]
    told = [task_run_of(event)["dynamic_key"] for batch in batches for event in batch]
    assert told == ["0", "1", "2", "3", "4", "5", "6"]


def test_a_plan_of_any_size_is_told_before_it_runs() -> None:
    mirror = a_mirror()
    play(mirror, *(planned(job_id) for job_id in range(5_000)), plan_completed(5_000))
    told = mirror.due(START, limit=10_000)
    assert [state_of(event) for event in told] == [("PENDING", "Pending")] * 5_000


def test_what_prefect_has_lost_is_told_again_as_a_new_event() -> None:
    mirror = a_mirror()
    first = play(mirror, planned(1), planned(2), started(1), succeeded(1), started(2), succeeded(2), Ask(3))
    assert mirror.resend({task_run_id_of(mirror.flow_run_id, 1)}) == 1
    (again,) = play(mirror, Ask(4))
    assert state_of(again) == ("COMPLETED", "Completed")
    assert again["id"] not in {event["id"] for event in first}
    told = [*first, again]
    for at in range(5, 50):
        mirror.resend(set())
        told += play(mirror, Ask(at))
    assert len({event["id"] for event in told}) == len(told)
    assert len({(event["resource"]["prefect.resource.id"], event["occurred"]) for event in told}) == len(told)


def test_a_rule_job_that_a_checkpoint_replaces_has_not_run_and_does_not_count() -> None:
    mirror = a_mirror()
    drop = RuleJobDropped(time=START + 1, job_id=1)
    told = play(mirror, planned(1), planned(2), plan_completed(2), drop, plan_completed(1, at=1), Ask(2))
    assert states_of(told) == ["NotRun (CANCELLED)", "Pending"]
    assert (mirror.total(), len(mirror)) == (1, 2)
    assert [job.planned.job_id for job in mirror.open()] == [2]


def test_a_rule_job_that_comes_back_into_the_plan_counts_and_runs() -> None:
    mirror = a_mirror()
    play(mirror, planned(1), RuleJobDropped(time=START + 1, job_id=1), planned(1, at=2))
    assert mirror.total() == 1
    assert [job.planned.job_id for job in mirror.open()] == [1]


def test_messages_errors_and_unknown_rule_jobs_change_nothing() -> None:
    mirror = a_mirror()
    told = play(
        mirror,
        Message(time=START, level="INFO", text="hello"),
        ErrorRaised(time=START, exception="WorkflowError", text="oh"),
        plan_completed(0),
        started(99),
        succeeded(99),
        RuleJobDropped(time=START, job_id=99),
        Ask(5),
    )
    assert told == []
    assert len(mirror) == 0


def test_a_rule_job_that_finishes_well_while_the_job_is_being_stopped_has_completed() -> None:
    assert states_of(play(a_mirror(), planned(), started(), STOP, succeeded(), Ask(3))) == ["Completed"]


@pytest.mark.parametrize("will_retry", [False, True])
def test_a_rule_job_that_ends_because_the_job_is_being_stopped_has_not_failed(will_retry: bool) -> None:
    mirror = a_mirror()
    told = play(mirror, planned(), started(), STOP, failed(exit_code=-15, will_retry=will_retry), Ask(3))
    assert states_of(told) == ["Cancelled"]
    assert mirror.failures() == []


AWAITING_RETRY = (planned(), started(), failed(will_retry=True, exit_code=5))


@pytest.mark.parametrize(
    ("story", "ending", "state"),
    [
        ([planned()], Ending.FINISHED, "NotRun (CANCELLED)"),
        ([planned()], Ending.STOPPED, "NotRun (CANCELLED)"),
        ([planned()], Ending.CRASHED, "NotRun (CANCELLED)"),
        ([planned(), started()], Ending.FINISHED, "Crashed"),
        ([planned(), started()], Ending.STOPPED, "Cancelled"),
        ([planned(), started()], Ending.CRASHED, "Crashed"),
        # Without keep_going Snakemake promises a retry and gives up before it when another rule job fails.
        (AWAITING_RETRY, Ending.FINISHED, "Failed"),
        (AWAITING_RETRY, Ending.STOPPED, "Cancelled"),
        (AWAITING_RETRY, Ending.CRASHED, "Crashed"),
    ],
)
def test_when_the_mirror_is_closed_every_rule_job_ends(
    story: Sequence[Step], ending: Ending, state: str
) -> None:
    mirror = a_mirror()
    assert states_of(play(mirror, *story, ending, Ask(9))) == [state]
    assert mirror.open() == []


@pytest.mark.parametrize("ending", Ending)
def test_closing_the_mirror_leaves_alone_what_has_ended(ending: Ending) -> None:
    plan = [planned(1), planned(2), planned(3, is_done=True)]
    told = play(a_mirror(), *plan, started(1), succeeded(1), started(2), failed(2), ending, Ask(9))
    assert sorted(states_of(told)) == ["Completed", "Failed", "Skipped (COMPLETED)"]


def test_progress_failures_and_outputs_are_read_from_what_was_told() -> None:
    mirror = a_mirror()
    play(
        mirror,
        planned(1, outputs=("a",)),
        planned(2, outputs=("b",)),
        planned(3, outputs=("c",), is_done=True),
    )
    play(mirror, started(1), succeeded(1), started(2, at=1), failed(2, at=4))
    assert mirror.reported_completed() == 0
    play(mirror, Ask(5))
    assert (mirror.reported_completed(), mirror.total()) == (2, 3)
    assert [job.name for job in mirror.failures()] == ["map"]
    assert list(mirror.outputs()) == ["a", "c"]


def test_logs_and_benchmarks_are_those_of_what_ran_or_was_up_to_date() -> None:
    mirror = a_mirror()
    jobs = {1: "failed", 2: "waits", 3: "done"}
    for job_id, name in jobs.items():
        event = planned(job_id, logs=(f"{name}.log",), benchmarks=(f"{name}.tsv",), is_done=name == "done")
        play(mirror, event)
    play(mirror, started(1, log_path="1.1.log"), failed(1, will_retry=True))
    play(mirror, started(1, attempt=2, log_path="1.2.log"), failed(1, attempt=2))
    assert mirror.records() == {
        FileKind.LOG: ["failed.log", "1.1.log", "1.2.log", "done.log"],
        FileKind.BENCHMARK: ["failed.tsv", "done.tsv"],
    }
