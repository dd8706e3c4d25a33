"""The routes of `/jobs` and `/bundles`."""

import asyncio
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Header, Query, Request, Response, status
from fastapi.responses import FileResponse
from starlette.convertors import PathConvertor, register_url_convertor

from api.auth.callers import TokenScope, WithCaller
from api.jobs.cancellation import cancel
from api.jobs.changes import JobChanges
from api.jobs.dependencies import (
    IdempotencyKey,
    IfNoneMatch,
    WithBundles,
    WithJobs,
    WithOutputs,
    WithSubmissions,
)
from api.jobs.outputs import check_files_are_here
from api.services import WithServices
from api.web.bodies import JsonBodyRoute
from api.web.etags import named_tags
from api.web.problems import Forbidden, refusals
from api.web.queries import JobQuery, OutputQuery, PageQuery, RuleJobQuery
from api.web.schemas import (
    Alive,
    Bundle,
    BundleLimits,
    Job,
    JobPage,
    LogPage,
    OutputPage,
    RuleJob,
    RuleJobPage,
)
from api.web.statuses import FINAL_STATUSES
from flows.contract.spec import JobSpec
from flows.contract.storage import Method

jobs_router = APIRouter(route_class=JsonBodyRoute)


class _FileConvertor(PathConvertor):
    """The name of a file, which may also hold line breaks."""

    regex = "(?s:.*)"


register_url_convertor("file", _FileConvertor())

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
        "summary": "A workflow that was uploaded with PUT /bundles",
        "value": {
            "workflow": {"bundle": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}
        },
    },
    "mock": {
        "summary": "No workflow: rule jobs that only wait",
        "value": {"engine": "mock", "mock": {"delay_seconds": [1, 2], "success_rate": 1.0, "rules": 3}},
    },
}


# The format is detected from the content.
_ARCHIVE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@jobs_router.put(
    "/bundles",
    operation_id="putBundle",
    summary="Upload a workflow",
    tags=["bundles"],
    responses={
        200: {"description": "The bundle existed already."},
        201: {"description": "The bundle was created.", "model": Bundle},
        **refusals(413, 415, 422),
    },
    openapi_extra={"requestBody": {"required": True, "content": _ARCHIVE}},
)
async def put_bundle(
    request: Request,
    caller: WithCaller,
    bundles: WithBundles,
    response: Response,
    content_length: Annotated[int | None, Header(include_in_schema=False)] = None,
) -> Bundle:
    """Accepts the workflow's directory as a tar, gzipped tar or zip file.

    Use the returned name in any number of jobs. The same bytes have the same name.
    """
    bundle, response.status_code = await bundles.receive(request.stream(), content_length, caller.name)
    return bundle


@jobs_router.get(
    "/bundles/limits",
    operation_id="getBundleLimits",
    summary="Read how large a bundle may be",
    tags=["bundles"],
    responses=refusals(422),
)
async def get_bundle_limits(bundles: WithBundles) -> BundleLimits:
    return bundles.limits()


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
    """Creates a job, which waits for a worker of its group. The response has its id and links."""
    job = await submissions.submit(jobs, spec, idempotency_key)
    response.headers["Location"] = job.links.self
    return job


@jobs_router.get(
    "/jobs",
    operation_id="listJobs",
    summary="List jobs, newest first",
    tags=["jobs"],
    responses=refusals(400, 422),
)
async def list_jobs(query: Annotated[JobQuery, Query()], jobs: WithJobs) -> JobPage:
    """Filters match exactly. Pages that follow a `cursor` neither repeat nor skip a job."""
    return await jobs.list(query)


@jobs_router.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    summary="Get a job",
    tags=["jobs"],
    responses={
        200: {"model": Job},
        304: {"description": "The job has not changed since the response with that `ETag`."},
        **refusals(404, 422),
    },
)
async def get_job(
    services: WithServices,
    job_id: UUID,
    jobs: WithJobs,
    wait: Annotated[
        float,
        Query(ge=0, le=LONGEST_WAIT, description="Long polling: how many seconds to wait for a change."),
    ] = 0,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """With `wait`, responds when the job changes, or after that many seconds.

    A change is a difference from `If-None-Match`, or from the job at the time of the request. A job that
    has ended is returned at once.
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
    """Removes its run and files, and its bundle if no other job needs it. Needs the scope `admin`.

    A job can't be removed while a job that resumes it is open. A working directory that another job
    continued in is removed with the last of these jobs.
    """
    await jobs.get(job_id)
    if caller.scope is not TokenScope.ADMIN:
        raise Forbidden(
            f"The token '{caller.name}' has the scope '{caller.scope}'; removing a job needs 'admin'.",
            "Ask the operator for a token with the scope 'admin'.",
        )
    await services.removal.remove(jobs, job_id)


@jobs_router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancelJob",
    summary="Cancel a job",
    tags=["jobs"],
    status_code=status.HTTP_202_ACCEPTED,
    responses=refusals(404, 409, 422),
)
async def cancel_job(job_id: UUID, jobs: WithJobs) -> Job:
    """A pending job is cancelled at once. A running one is `cancelling` until its processes have ended."""
    return await cancel(jobs, job_id)


@jobs_router.post(
    "/jobs/{job_id}/resume",
    operation_id="resumeJob",
    summary="Resume a job, with changes or without",
    tags=["jobs"],
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {"headers": {"Location": {"description": "The new job.", "schema": {"type": "string"}}}},
        **refusals(404, 409, 422),
    },
)
async def resume_job(
    job_id: UUID,
    jobs: WithJobs,
    submissions: WithSubmissions,
    response: Response,
    changes: Annotated[JobChanges | None, Body()] = None,
) -> Job:
    """Creates a new job that continues in the same directory and runs only what is necessary.

    The body changes the spec of the new job. Without changes, a completed job does what has become
    necessary since, because inputs have changed. Repeating the request returns the same new job. That one
    can be resumed too.
    """
    job = await submissions.resume(jobs, job_id, changes or JobChanges())
    response.headers["Location"] = job.links.self
    return job


@jobs_router.get(
    "/jobs/{job_id}/tasks",
    operation_id="listTasks",
    summary="List the rule jobs of a job",
    tags=["rule jobs"],
    responses=refusals(400, 404, 422),
)
async def list_tasks(job_id: UUID, query: Annotated[RuleJobQuery, Query()], jobs: WithJobs) -> RuleJobPage:
    """In a stable order. Pages that follow a `cursor` neither repeat nor skip a rule job."""
    return await jobs.tasks(job_id, query)


@jobs_router.get(
    "/jobs/{job_id}/tasks/{task_id}",
    operation_id="getTask",
    summary="Get a rule job",
    tags=["rule jobs"],
    responses=refusals(404, 422),
)
async def get_task(job_id: UUID, task_id: UUID, jobs: WithJobs) -> RuleJob:
    return await jobs.task(job_id, task_id)


@jobs_router.get(
    "/jobs/{job_id}/tasks/{task_id}/logs",
    operation_id="listTaskLogs",
    summary="Read the log of a rule job",
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
    summary="Read the log of a job, including its rule jobs",
    tags=["jobs"],
    responses=refusals(400, 404, 422),
)
async def list_logs(job_id: UUID, query: Annotated[PageQuery, Query()], jobs: WithJobs) -> LogPage:
    return await jobs.logs(job_id, query)


@jobs_router.get(
    "/jobs/{job_id}/outputs",
    operation_id="listOutputs",
    summary="List the outputs of a job",
    tags=["outputs"],
    responses=refusals(400, 404, 422, 500),
)
async def list_outputs(
    job_id: UUID, query: Annotated[OutputQuery, Query()], jobs: WithJobs, outputs: WithOutputs
) -> OutputPage:
    """Sorted by path, with sizes and checksums. Empty until the job has published its outputs.

    `kind=log` lists the `log:` files of rules, what each attempt at a rule job wrote, and Snakemake's log;
    `kind=benchmark` the `benchmark:` files. Jobs that failed have them, too.
    """
    check_files_are_here(await jobs.get(job_id))
    return await outputs.reads.in_thread(jobs.caller.name, outputs.page, job_id, query)


@jobs_router.head("/jobs/{job_id}/outputs/{path:file}", include_in_schema=False)
@jobs_router.get(
    "/jobs/{job_id}/outputs/{path:file}",
    operation_id="downloadOutput",
    summary="Download an output",
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
        206: {"description": "The requested ranges of the file."},
        307: {"description": "The file is in S3: `Location` is valid for a few minutes."},
        **refusals(404, 422, 500),
    },
)
async def download_output(
    request: Request,
    job_id: UUID,
    path: str,
    jobs: WithJobs,
    outputs: WithOutputs,
    view: Annotated[
        bool, Query(description="Let a browser show the file, instead of saving it. Not for files in S3.")
    ] = False,
) -> Response:
    """Supports `Range` and `If-Range`, so that a download can be resumed."""
    job = await jobs.get(job_id)
    check_files_are_here(job)
    method: Method = "HEAD" if request.method == "HEAD" else "GET"
    sharing = await jobs.sharing_work(job)
    download = partial(outputs.download, job_id, path, method, sharing, is_shown=view)
    return await outputs.reads.in_thread(jobs.caller.name, download)


@jobs_router.get(
    "/livez", operation_id="isAlive", summary="Check that the service is running", tags=["service"]
)
async def is_alive() -> Alive:
    """Does not check Prefect: without it the service is still alive, and restarting it would not help."""
    return Alive()
