"""The statuses that clients see, and total tables that map Prefect's states to them."""

from collections.abc import Collection, Mapping
from enum import StrEnum

from prefect.client.schemas.objects import StateType

from flows.contract.spec import RuleJobState


class JobStatus(StrEnum):
    """The status of a job."""

    PENDING = "pending"
    """Accepted, and waiting for its start time, a free slot or a worker."""
    RUNNING = "running"
    """A worker is running it."""
    PAUSED = "paused"
    """Paused by an operator in Prefect."""
    COMPLETED = "completed"
    """Final: all requested rule jobs are done."""
    FAILED = "failed"
    """Final: `error` says why, and what to do."""
    CANCELLING = "cancelling"
    """Being cancelled; parts of it may still run."""
    CANCELLED = "cancelled"
    """Final: stopped before it was complete. Nothing of it runs."""


class RuleJobStatus(StrEnum):
    """The status of a rule job."""

    PENDING = "pending"
    """Planned, or waiting for its next attempt."""
    RUNNING = "running"
    """An attempt is running."""
    COMPLETED = "completed"
    """Final: its outputs exist."""
    FAILED = "failed"
    """Final: its last attempt failed."""
    CANCELLED = "cancelled"
    """Final: stopped, or not run because the job ended first."""
    SKIPPED = "skipped"
    """Final: its outputs were up to date before the job started."""


JOB_STATUS: Mapping[StateType, JobStatus] = {
    StateType.SCHEDULED: JobStatus.PENDING,
    StateType.PENDING: JobStatus.PENDING,
    StateType.RUNNING: JobStatus.RUNNING,
    StateType.PAUSED: JobStatus.PAUSED,
    StateType.COMPLETED: JobStatus.COMPLETED,
    StateType.FAILED: JobStatus.FAILED,
    StateType.CRASHED: JobStatus.FAILED,
    StateType.CANCELLING: JobStatus.CANCELLING,
    StateType.CANCELLED: JobStatus.CANCELLED,
}

FINAL_STATUSES = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})

OPEN_STATUSES = tuple(status for status in JobStatus if status not in FINAL_STATUSES)

RULE_JOB_STATUS: Mapping[StateType, RuleJobStatus] = {
    StateType.SCHEDULED: RuleJobStatus.PENDING,
    StateType.PENDING: RuleJobStatus.PENDING,
    StateType.RUNNING: RuleJobStatus.RUNNING,
    StateType.PAUSED: RuleJobStatus.PENDING,
    StateType.COMPLETED: RuleJobStatus.COMPLETED,
    StateType.FAILED: RuleJobStatus.FAILED,
    StateType.CRASHED: RuleJobStatus.FAILED,
    StateType.CANCELLING: RuleJobStatus.CANCELLED,
    StateType.CANCELLED: RuleJobStatus.CANCELLED,
}
"""Without `RuleJobStatus.SKIPPED`: only the name of the state distinguishes it from completed."""


def job_status(state_type: StateType | None) -> JobStatus:
    """The status of a flow run whose state has this type; without a state, it has not started."""
    return JobStatus.PENDING if state_type is None else JOB_STATUS[state_type]


def rule_job_status(state_type: StateType | None, state_name: str | None) -> RuleJobStatus:
    """The status of a task run in this state; without a state, it has not started."""
    if state_type is None:
        return RuleJobStatus.PENDING
    if state_type is StateType.COMPLETED and state_name == RuleJobState.SKIPPED:
        return RuleJobStatus.SKIPPED
    return RULE_JOB_STATUS[state_type]


def state_types_of_jobs(statuses: Collection[JobStatus]) -> list[StateType]:
    """The state types of flow runs with one of these statuses."""
    return [state_type for state_type, status in JOB_STATUS.items() if status in statuses]


def state_types_of_rule_jobs(statuses: Collection[RuleJobStatus]) -> list[StateType]:
    """The state types of rule jobs with one of these statuses; skipped shares its type with completed."""
    return [
        state_type
        for state_type, status in RULE_JOB_STATUS.items()
        if status in statuses or (status is RuleJobStatus.COMPLETED and RuleJobStatus.SKIPPED in statuses)
    ]
