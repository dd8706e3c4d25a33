"""Removes jobs that have ended: their flow run, their files, and bundles that no other job needs."""

from uuid import UUID

import anyio.to_thread

from api.jobs.disposal import Disposal, bundle_of
from api.jobs.submissions import resume_key
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.flow_runs import FlowRuns
from api.web.problems import JobNotFinished
from api.web.statuses import OPEN_STATUSES, job_status


class Removal:
    """Shared by all callers."""

    def __init__(self, flow_runs: FlowRuns, disposal: Disposal) -> None:
        self._flow_runs = flow_runs
        self._disposal = disposal

    async def remove(self, jobs: VisibleJobs, job_id: UUID) -> None:
        """Removes the flow run last, so that a removal that failed half-way can be repeated.

        Raises `NotFound`, `JobNotFinished` (also while a job that resumes this one is open),
        `PrefectUnavailable` and `flows.contract.storage.StorageError`.
        """
        job = await jobs.get(job_id)
        if job.status in OPEN_STATUSES:
            raise JobNotFinished(f"The job {job_id} is {job.status}.", "Cancel it first.")
        await self._check_not_needed(job_id)
        flow_run = await self._flow_runs.whole(job_id)
        await anyio.to_thread.run_sync(self._disposal.remove_job, job_id)
        bundle = bundle_of(flow_run.parameters)
        if bundle is not None and flow_run.idempotency_key is not None:
            await anyio.to_thread.run_sync(self._disposal.end_use, bundle, flow_run.idempotency_key)
        await self._flow_runs.delete_artifacts(job_id)
        await self._flow_runs.delete(job_id)

    async def _check_not_needed(self, job_id: UUID) -> None:
        """Raises `JobNotFinished` while a job that resumes this one may still need its files.

        The successor is found by its key, which it has from the start; the label that names it is
        written a moment later.
        """
        successor = await self._flow_runs.made_with(resume_key(job_id))
        while successor is not None and (status := job_status(successor.state_type)) not in OPEN_STATUSES:
            # A job that resumes one that never ran continues this one.
            successor = (
                None if successor.run_count else await self._flow_runs.made_with(resume_key(successor.id))
            )
        if successor is not None:
            raise JobNotFinished(
                f"The job {successor.id}, which resumes the job {job_id}, is {status}.",
                "Wait until it has ended, or cancel it first.",
            )
