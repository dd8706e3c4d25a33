"""Cancels a job. Prefect and the worker do the rest."""

from uuid import UUID

from api.jobs.visible_jobs import VisibleJobs
from api.web.problems import JobAlreadyFinished
from api.web.schemas import Job
from api.web.statuses import JobStatus

_STOPPING = (JobStatus.CANCELLING, JobStatus.CANCELLED)
_ENDED = (JobStatus.COMPLETED, JobStatus.FAILED)


async def cancel(jobs: VisibleJobs, job_id: UUID) -> Job:
    """The job, which is being cancelled. Repeating the request changes nothing.

    Raises `NotFound`, `JobAlreadyFinished` and `PrefectUnavailable`.
    """
    job = await jobs.get(job_id)
    if job.status not in (*_STOPPING, *_ENDED):
        await jobs.reads.flow_runs.cancel(job_id)
        job = await jobs.get(job_id)
    if job.status in _ENDED:
        raise JobAlreadyFinished(
            f"The job {job_id} is already {job.status}.", "Nothing of it runs: no action is needed."
        )
    return job
