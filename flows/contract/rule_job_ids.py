"""Which task runs belong to a job: their ids follow from the job's."""

from uuid import UUID, uuid5


def task_run_id_of(flow_run_id: UUID, job_id: int) -> UUID:
    """The task run of a rule job: always the same one for the same rule job of the same job."""
    return uuid5(flow_run_id, f"rule-job-{job_id}")
