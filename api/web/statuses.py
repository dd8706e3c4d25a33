"""The statuses that clients see, and the total tables from Prefect's states to them."""

from collections.abc import Collection, Mapping
from enum import StrEnum

from prefect.client.schemas.objects import StateType

from flows.contract.spec import RuleJobState


class JobStatus(StrEnum):
    """Where a job is on its way."""

    PENDING = "pending"
    """Accepted; waits for its time, a free slot or a worker."""
    RUNNING = "running"
    """A worker executes it."""
    PAUSED = "paused"
    """Held by an operator in Prefect."""
    COMPLETED = "completed"
    """Final: every rule job that was asked for is done."""
    FAILED = "failed"
    """Final: `error` says whose fault it was and what to do."""
    CANCELLING = "cancelling"
    """Asked to stop; something of it may still run."""
    CANCELLED = "cancelled"
    """Final: stopped before its end, nothing of it runs."""


class RuleJobStatus(StrEnum):
    """Where a rule job is on its way."""

    PENDING = "pending"
    """Planned, or between two attempts."""
    RUNNING = "running"
    """An attempt is going on."""
    COMPLETED = "completed"
    """Final: its outputs are there."""
    FAILED = "failed"
    """Final: its last attempt failed."""
    CANCELLED = "cancelled"
    """Final: stopped, or never run because the job ended before."""
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
"""Without `RuleJobStatus.SKIPPED`, which only the state's name tells from completed."""


def job_status(state_type: StateType | None) -> JobStatus:
    """The status of a flow run in a state of this type; one without a state has yet to start."""
    return JobStatus.PENDING if state_type is None else JOB_STATUS[state_type]


def rule_job_status(state_type: StateType | None, state_name: str | None) -> RuleJobStatus:
    """The status of a task run in such a state; one without a state has yet to start."""
    if state_type is None:
        return RuleJobStatus.PENDING
    if state_type is StateType.COMPLETED and state_name == RuleJobState.SKIPPED:
        return RuleJobStatus.SKIPPED
    return RULE_JOB_STATUS[state_type]


def state_types_of_jobs(statuses: Collection[JobStatus]) -> list[StateType]:
    """Exactly the state types whose flow runs have one of these statuses."""
    return [state_type for state_type, status in JOB_STATUS.items() if status in statuses]


def state_types_of_rule_jobs(statuses: Collection[RuleJobStatus]) -> list[StateType]:
    """The state types of rule jobs with one of these statuses; skipped shares its type with completed."""
    return [
        state_type
        for state_type, status in RULE_JOB_STATUS.items()
        if status in statuses or (status is RuleJobStatus.COMPLETED and RuleJobStatus.SKIPPED in statuses)
    ]
