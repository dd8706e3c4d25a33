"""The tables from Prefect's states to what clients see are total."""

import pytest
from prefect.client.schemas.objects import StateType

from api.web.statuses import (
    JOB_STATUS,
    RULE_JOB_STATUS,
    JobStatus,
    RuleJobStatus,
    job_status,
    rule_job_status,
    state_types_of_jobs,
    state_types_of_rule_jobs,
)

JOBS = {
    StateType.SCHEDULED: "pending",
    StateType.PENDING: "pending",
    StateType.RUNNING: "running",
    StateType.PAUSED: "paused",
    StateType.COMPLETED: "completed",
    StateType.FAILED: "failed",
    StateType.CRASHED: "failed",
    StateType.CANCELLING: "cancelling",
    StateType.CANCELLED: "cancelled",
}
RULE_JOBS = {
    StateType.SCHEDULED: "pending",
    StateType.PENDING: "pending",
    StateType.RUNNING: "running",
    StateType.PAUSED: "pending",
    StateType.COMPLETED: "completed",
    StateType.FAILED: "failed",
    StateType.CRASHED: "failed",
    StateType.CANCELLING: "cancelled",
    StateType.CANCELLED: "cancelled",
}


@pytest.mark.parametrize("state_type", StateType)
def test_every_state_of_prefect_has_a_status(state_type: StateType) -> None:
    assert job_status(state_type) == JOBS[state_type]
    assert rule_job_status(state_type, None) == RULE_JOBS[state_type]


def test_every_status_can_be_reached_and_filtered_for() -> None:
    assert set(JOB_STATUS.values()) == set(JobStatus)
    assert {*RULE_JOB_STATUS.values(), RuleJobStatus.SKIPPED} == set(RuleJobStatus)
    for job in JobStatus:
        assert [JOBS[state_type] for state_type in state_types_of_jobs([job])] == [job] * list(
            JOBS.values()
        ).count(job)
    for rule_job in RuleJobStatus:
        assert state_types_of_rule_jobs([rule_job])


def test_what_has_no_state_yet_is_pending() -> None:
    assert job_status(None) is JobStatus.PENDING
    assert rule_job_status(None, None) is RuleJobStatus.PENDING


def test_only_a_completed_rule_job_can_be_skipped() -> None:
    assert rule_job_status(StateType.COMPLETED, "Skipped") is RuleJobStatus.SKIPPED
    assert rule_job_status(StateType.COMPLETED, "Completed") is RuleJobStatus.COMPLETED
    assert rule_job_status(StateType.FAILED, "Skipped") is RuleJobStatus.FAILED
    assert state_types_of_rule_jobs([RuleJobStatus.SKIPPED]) == [StateType.COMPLETED]
