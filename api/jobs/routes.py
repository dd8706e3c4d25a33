"""`/jobs` over HTTP: every route asks one room and answers with what it says."""

import asyncio
from typing import Annotated
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Body, Header, Query, Request, Response, status
from fastapi.responses import FileResponse

from api.auth.callers import TokenScope, WithCaller
from api.jobs.cancellation import cancel
from api.jobs.dependencies import (
    IdempotencyKey,
    IfNoneMatch,
    WithBundles,
    WithJobs,
    WithOutputs,
    WithSubmissions,
)
from api.services import WithServices
from api.web.bodies import JsonBodyRoute
from api.web.etags import named_tags
from api.web.problems import Forbidden, refusals
from api.web.queries import JobQuery, PageQuery, RuleJobQuery
from api.web.schemas import Alive, Bundle, Job, JobPage, LogPage, OutputPage, RuleJob, RuleJobPage
from api.web.statuses import FINAL_STATUSES
from flows.contract.spec import JobSpec
from flows.contract.storage import Method

jobs_router = APIRouter(route_class=JsonBodyRoute)


LONGEST_WAIT = 60
_LOOK_AGAIN_SECONDS = 0.25

_SPECS = {
    "snakemake": {
        "summary": "A workflow in a directory of the server",
        "value": {
            "name": "trio-1",
            "tags": {"project": "x"},
            "workflow": {"path": "/srv/workflows/variants"},
            "targets": ["all"],
            "config": {"samples": ["A", "B"]},
            "cores": 2,
            "options": {"retries": 1, "report": True},
        },
    },
    "git": {
        "summary": "A workflow from a git repository",
        "value": {
            "workflow": {"git": "https://github.com/owner/repository", "ref": "v1.2.0", "subdir": "workflow"},
            "cores": 4,
        },
    },
    "bundle": {
        "summary": "A workflow that was sent with PUT /bundles",
        "value": {
            "workflow": {"bundle": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}
        },
    },
    "mock": {
        "summary": "No workflow at all: rule jobs that only wait",
        "value": {"engine": "mock", "mock": {"delay_seconds": [1, 2], "success_rate": 1.0, "rules": 3}},
    },
}


# What it is packed as is seen by its content.
_ARCHIVE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@jobs_router.put(
    "/bundles",
    operation_id="putBundle",
    summary="Send a workflow",
    tags=["bundles"],
    responses={
        200: {"description": "It was there already."},
        201: {"description": "It is there now.", "model": Bundle},
        **refusals(413, 415, 422),
    },
    openapi_extra={"requestBody": {"required": True, "content": _ARCHIVE}},
)
async def put_bundle(
    request: Request,
    bundles: WithBundles,
    response: Response,
    content_length: Annotated[int | None, Header(include_in_schema=False)] = None,
) -> Bundle:
    """Takes the workflow's directory as a tar, a gzipped tar or a zip file.

    The answer names it for as many jobs as you like. The same bytes have the same name.
    """
    bundle, response.status_code = await bundles.receive(request.stream(), content_length)
    return bundle


@jobs_router.post(
    "/jobs",
    operation_id="submitJob",
    summary="Submit a workflow",
    tags=["jobs"],
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {"headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}}},
        **refusals(413, 415, 422),
    },
)
async def submit_job(
    spec: Annotated[JobSpec, Body(openapi_examples=_SPECS)],
    jobs: WithJobs,
    submissions: WithSubmissions,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Makes a job, which waits for a worker of its group. The answer has its id and links."""
    job = await submissions.submit(jobs, spec, idempotency_key)
    response.headers["Location"] = job.links.self
    return job


@jobs_router.get(
    "/jobs",
    operation_id="listJobs",
    summary="Find jobs, newest first",
    tags=["jobs"],
    responses=refusals(400, 422),
)
async def list_jobs(query: Annotated[JobQuery, Query()], jobs: WithJobs) -> JobPage:
    """Filters are exact. Walking on with `cursor` gives no job twice and misses none."""
    return await jobs.list(query)


@jobs_router.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    summary="See how a job is doing",
    tags=["jobs"],
    responses={
        200: {"model": Job},
        304: {"description": "The job is as `If-None-Match` says."},
        **refusals(404, 422),
    },
)
async def get_job(
    services: WithServices,
    job_id: UUID,
    jobs: WithJobs,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for a change before answering.")
    ] = 0,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """With `wait`, answers as soon as the job is another than `If-None-Match` says, or than it is now.

    A job that has ended is answered at once.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + min(wait, services.settings.longest_wait_seconds)
    job = await jobs.get(job_id)
    known = named_tags(if_none_match) if if_none_match else {job.etag}
    while job.etag in known and job.status not in FINAL_STATUSES and clock() < deadline:
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        job = await jobs.get(job_id)
    headers = {"ETag": job.etag, "Cache-Control": "no-cache"}
    if if_none_match and ("*" in known or job.etag in known):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(job.json_text, media_type="application/json", headers=headers)


@jobs_router.delete(
    "/jobs/{job_id}",
    operation_id="deleteJob",
    summary="Remove a job that has ended",
    tags=["jobs"],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=refusals(404, 409, 422),
)
async def delete_job(job_id: UUID, caller: WithCaller, jobs: WithJobs, services: WithServices) -> None:
    """Removes its run, its files, and its bundle if no other job needs it. For the scope `admin`.

    The directory in which another job went on with this one stays until that one is removed; while
    that one is open, so does this job.
    """
    await jobs.get(job_id)
    if caller.scope is not TokenScope.ADMIN:
        raise Forbidden(
            f"The token '{caller.name}' may not remove jobs.",
            "Ask the operator for one with the scope admin.",
        )
    await services.removal.remove(jobs, job_id)


@jobs_router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancelJob",
    summary="Stop a job",
    tags=["jobs"],
    status_code=status.HTTP_202_ACCEPTED,
    responses=refusals(404, 409, 422),
)
async def cancel_job(job_id: UUID, jobs: WithJobs) -> Job:
    """A job that has not started is cancelled at once; of a running one, everything is ended first."""
    return await cancel(jobs, job_id)


@jobs_router.post(
    "/jobs/{job_id}/resume",
    operation_id="resumeJob",
    summary="Go on with a job that failed or was cancelled",
    tags=["jobs"],
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {"headers": {"Location": {"description": "The new job.", "schema": {"type": "string"}}}},
        **refusals(404, 409, 422),
    },
)
async def resume_job(job_id: UUID, jobs: WithJobs, submissions: WithSubmissions, response: Response) -> Job:
    """Makes a new job that works in the same directory and does only what is incomplete there.

    Asking once more gives the same new job; that one can be resumed in its turn.
    """
    job = await submissions.resume(jobs, job_id)
    response.headers["Location"] = job.links.self
    return job


@jobs_router.get(
    "/jobs/{job_id}/tasks",
    operation_id="listTasks",
    summary="See a job's rule jobs",
    tags=["rule jobs"],
    responses=refusals(400, 404, 422),
)
async def list_tasks(job_id: UUID, query: Annotated[RuleJobQuery, Query()], jobs: WithJobs) -> RuleJobPage:
    """In an order that never changes. Walking on with `cursor` gives none twice and misses none."""
    return await jobs.tasks(job_id, query)


@jobs_router.get(
    "/jobs/{job_id}/tasks/{task_id}",
    operation_id="getTask",
    summary="See one rule job",
    tags=["rule jobs"],
    responses=refusals(404, 422),
)
async def get_task(job_id: UUID, task_id: UUID, jobs: WithJobs) -> RuleJob:
    return await jobs.task(job_id, task_id)


@jobs_router.get(
    "/jobs/{job_id}/tasks/{task_id}/logs",
    operation_id="listTaskLogs",
    summary="Read a rule job's log",
    tags=["rule jobs"],
    responses=refusals(400, 404, 422),
)
async def list_task_logs(
    job_id: UUID, task_id: UUID, query: Annotated[PageQuery, Query()], jobs: WithJobs
) -> LogPage:
    return await jobs.logs(job_id, query, task_id)


@jobs_router.get(
    "/jobs/{job_id}/logs",
    operation_id="listLogs",
    summary="Read a job's log, its rule jobs' included",
    tags=["jobs"],
    responses=refusals(400, 404, 422),
)
async def list_logs(job_id: UUID, query: Annotated[PageQuery, Query()], jobs: WithJobs) -> LogPage:
    return await jobs.logs(job_id, query)


@jobs_router.get(
    "/jobs/{job_id}/outputs",
    operation_id="listOutputs",
    summary="See what a job has made",
    tags=["outputs"],
    responses=refusals(400, 404, 422, 500),
)
async def list_outputs(
    job_id: UUID, query: Annotated[PageQuery, Query()], jobs: WithJobs, outputs: WithOutputs
) -> OutputPage:
    """By path, with sizes and checksums; empty until the job has published them."""
    await jobs.get(job_id)
    return await anyio.to_thread.run_sync(outputs.page, job_id, query)


@jobs_router.head("/jobs/{job_id}/outputs/{path:path}", include_in_schema=False)
@jobs_router.get(
    "/jobs/{job_id}/outputs/{path:path}",
    operation_id="downloadOutput",
    summary="Download one output",
    tags=["outputs"],
    response_class=FileResponse,
    responses={
        200: {
            "description": "The file.",
            "content": {
                "application/octet-stream": {
                    "schema": {"type": "string", "format": "binary"},
                    "example": "##fileformat=VCFv4.3\n",
                }
            },
        },
        206: {"description": "The ranges of it that `Range` asked for."},
        307: {"description": "It is at `Location`, for a few minutes: outputs are kept in S3."},
        **refusals(404, 422, 500),
    },
)
async def download_output(
    request: Request, job_id: UUID, path: str, jobs: WithJobs, outputs: WithOutputs
) -> Response:
    """Answers `Range` and `If-Range`, so that a download can be taken up again."""
    await jobs.get(job_id)
    method: Method = "HEAD" if request.method == "HEAD" else "GET"
    return await anyio.to_thread.run_sync(outputs.download, job_id, path, method)


@jobs_router.get("/livez", operation_id="isAlive", summary="See that the service runs", tags=["service"])
async def is_alive() -> Alive:
    """Asks nobody else: a service that can't reach Prefect is alive, and restarting it would not help."""
    return Alive()
