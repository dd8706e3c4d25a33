"""Reads the history of a job that has ended, for its research object."""

from uuid import UUID

from api.insight.crates import History
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.translation import rule_job_from
from api.web.problems import JobNotFinished
from api.web.statuses import FINAL_STATUSES


async def history_of(jobs: VisibleJobs, job_id: UUID, most_rule_jobs: int) -> History:
    """All that Prefect keeps about a job that has ended.

    Raises `NotFound`, `JobNotFinished` and `PrefectUnavailable`.
    """
    job = await jobs.get(job_id)
    if job.status not in FINAL_STATUSES:
        raise JobNotFinished(
            f"The job {job_id} is {job.status}; it has a crate once it has ended.",
            "Ask again later: GET /jobs/{id}?wait=60 waits for a change.",
        )
    flow_run = await jobs.reads.flow_runs.row(job_id)
    rows = await jobs.reads.rule_jobs.rows(job_id, most_rule_jobs)
    rule_jobs = tuple(rule_job_from(row) for row in rows) if len(rows) <= most_rule_jobs else None
    return History(job, flow_run.parameters, rule_jobs)
