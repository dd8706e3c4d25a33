"""The routes of GA4GH WES 1.1.0, on top of the same jobs as `/jobs`."""

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from itertools import chain
from typing import Annotated, Any, TypeVar
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from api.jobs.cancellation import cancel
from api.jobs.dependencies import IdempotencyKey, WithJobs
from api.jobs.visible_jobs import VisibleJobs
from api.services import WithServices
from api.web.problems import WES_PREFIX as PREFIX
from api.web.problems import BadCursor, InvalidRequest, JobAlreadyFinished, NotFound
from api.web.queries import MAX_LIMIT, JobQuery, PageQuery, RuleJobQuery
from api.wes import translation
from api.wes.attachments import bundle_of, decode, read_form
from api.wes.schemas import RunId, RunListResponse, RunLog, RunStatus, State, TaskListResponse, TaskLog
from flows.contract.environments import TESTED_SNAKEMAKE
from flows.contract.spec import Label
from flows.contract.storage import BlobNotFound, job_key

# Described by the specification of WES, and therefore not in our OpenAPI document.
wes_router = APIRouter(prefix=PREFIX, include_in_schema=False)

Kind = TypeVar("Kind", bound=PageQuery)

MOST_LOG_BYTES = 16 << 20
"""The most that is returned of the log of a run. The whole log stays in the job's directory, or in S3."""

_DEFAULT_PAGE_SIZE = 50
_LONGEST_KEPT = 1 << 16
"""The most that is stored of a submission beside the job spec: every read of the job reads it too."""

_LOG = "text/plain; charset=utf-8"


async def _run_id(run_id: str) -> UUID:
    try:
        return UUID(run_id)
    except ValueError as error:
        raise _no(f"run {run_id[:100]}") from error


async def _task_id(task_id: str) -> UUID:
    try:
        return UUID(task_id)
    except ValueError as error:
        raise _no(f"task {task_id[:100]}") from error


JobId = Annotated[UUID, Depends(_run_id)]
TaskId = Annotated[UUID, Depends(_task_id)]


@wes_router.get("/service-info")
async def get_service_info(request: Request, services: WithServices, jobs: WithJobs) -> dict[str, Any]:
    settings = services.settings
    counts = await jobs.count()
    return {
        "id": settings.service_id,
        "name": settings.service_name,
        "type": {"group": "org.ga4gh", "artifact": "wes", "version": "1.1.0"},
        "description": "Runs Snakemake workflows as Prefect flow runs. Every rule job is a task.",
        "organization": {"name": settings.organization_name, "url": str(settings.organization_url)},
        "version": version("prefect-snakemake"),
        "workflow_type_versions": {
            kind: {"workflow_type_version": list(translation.WORKFLOW_TYPE_VERSIONS)}
            for kind in translation.WORKFLOW_TYPES
        },
        "supported_wes_versions": ["1.0.0", "1.1.0"],
        "supported_filesystem_protocols": ["https", "file"],
        "workflow_engine_versions": {translation.ENGINE: {"workflow_engine_version": list(TESTED_SNAKEMAKE)}},
        "default_workflow_engine_parameters": translation.default_parameters(),
        "system_state_counts": {state: 0 for state in State}
        | {translation.STATES[state_type]: count for state_type, count in counts.items()},
        "auth_instructions_url": f"{_base_url(request)}/docs",
        "tags": {"registered_workflows": ", ".join(sorted(await jobs.workflows()))},
    }


@wes_router.get("/runs")
async def list_runs(request: Request, jobs: WithJobs) -> RunListResponse:
    limit, cursor = _paging(request)
    page = await jobs.list(_query(JobQuery, limit, cursor))
    return RunListResponse(
        runs=[translation.summary_from(job) for job in page.items], next_page_token=page.next_cursor or ""
    )


@wes_router.post("/runs")
async def run_workflow(
    request: Request,
    response: Response,
    services: WithServices,
    jobs: WithJobs,
    idempotency_key: IdempotencyKey = None,
) -> RunId:
    settings = services.settings
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest(
            "The submission is not a form.",
            "Send it as multipart/form-data. See RunWorkflow in the WES specification for its fields.",
        )
    form = await read_form(request, settings.bundle_max_bytes, settings.max_body_bytes)
    try:
        fields = decode(form, settings.max_body_bytes)
        translation.spec_from(fields, "sha256:" + "0" * 64 if _has_files(form) else None)
        bundle = await bundle_of(form, services.bundles, jobs.caller.name)
    finally:
        await form.close()
    spec = translation.spec_from(fields, bundle)
    kept = fields.model_dump_json(exclude={"workflow_params", "tags"})
    if len(kept) > _LONGEST_KEPT:
        raise InvalidRequest(
            f"The fields other than workflow_params and tags exceed {_LONGEST_KEPT:,} characters.",
            "Move large values into workflow_params or the attachments.",
        )
    job = await services.submissions.submit(jobs, spec, idempotency_key, {Label.WES_REQUEST: kept})
    response.headers["Location"] = f"{PREFIX}/runs/{job.id}"
    return RunId(run_id=str(job.id))


@wes_router.get("/runs/{run_id}", response_model_exclude_none=True)
async def get_run_log(request: Request, job_id: JobId, jobs: WithJobs, services: WithServices) -> RunLog:
    job = await jobs.get(job_id)
    parameters, kept = await jobs.submission(job_id)
    base_url = _base_url(request)
    paths = await services.outputs.reads.in_thread(jobs.caller.name, services.outputs.paths, job_id)
    log_size = await anyio.to_thread.run_sync(services.storage.size, _log_key(job_id))
    return RunLog(
        run_id=str(job_id),
        request=translation.request_from(parameters, job.tags, kept, job.place),
        state=translation.state_of(job),
        run_log=translation.run_log_from(job, base_url, has_log=log_size is not None),
        task_logs_url=f"{base_url}{PREFIX}/runs/{job_id}/tasks",
        outputs={path: f"{base_url}{url}" for path, url in paths.items()},
    )


@wes_router.get("/runs/{run_id}/status")
async def get_run_status(job_id: JobId, jobs: WithJobs) -> RunStatus:
    return translation.status_from(await jobs.get(job_id))


@wes_router.post("/runs/{run_id}/cancel")
async def cancel_run(job_id: JobId, jobs: WithJobs) -> RunId:
    """Also succeeds for a run that has ended: WES defines no error for it."""
    with contextlib.suppress(JobAlreadyFinished):
        await cancel(jobs, job_id)
    return RunId(run_id=str(job_id))


@wes_router.get("/runs/{run_id}/tasks", response_model_exclude_none=True)
async def list_tasks(request: Request, job_id: JobId, jobs: WithJobs) -> TaskListResponse:
    await jobs.get(job_id)
    try:
        limit, cursor = _paging(request)
        page = await jobs.tasks(job_id, _query(RuleJobQuery, limit, cursor))
    except (InvalidRequest, BadCursor) as error:
        # WES declares no 400 for ListTasks.
        raise _no("page like that") from error
    base_url = _base_url(request)
    return TaskListResponse(
        task_logs=[translation.task_log_from(task, str(job_id), base_url) for task in page.items],
        next_page_token=page.next_cursor or "",
    )


@wes_router.get("/runs/{run_id}/tasks/{task_id}", response_model_exclude_none=True)
async def get_task(request: Request, job_id: JobId, task_id: TaskId, jobs: WithJobs) -> TaskLog:
    return translation.task_log_from(await jobs.task(job_id, task_id), str(job_id), _base_url(request))


@wes_router.get("/runs/{run_id}/log")
async def get_log(job_id: JobId, jobs: WithJobs, services: WithServices) -> Response:
    """The last `MOST_LOG_BYTES` of Snakemake's log, also while it runs."""
    await jobs.get(job_id)
    pieces = services.storage.read(_log_key(job_id), last=MOST_LOG_BYTES)
    try:
        first = await anyio.to_thread.run_sync(next, pieces, b"")
    except BlobNotFound as error:
        raise _no(f"log of run {job_id} yet") from error
    return StreamingResponse(chain((first,), pieces), media_type=_LOG)


@wes_router.get("/runs/{run_id}/tasks/{task_id}/log")
async def get_task_log(job_id: JobId, task_id: TaskId, jobs: WithJobs) -> Response:
    """The logs of all attempts."""
    await jobs.task(job_id, task_id)
    return StreamingResponse(_task_lines(jobs, job_id, task_id), media_type=_LOG)


def _log_key(job_id: UUID) -> str:
    return job_key(job_id, "snakemake.log")


async def _task_lines(jobs: VisibleJobs, job_id: UUID, task_id: UUID) -> AsyncIterator[str]:
    cursor: str | None = None
    while True:
        page = await jobs.logs(job_id, PageQuery(limit=MAX_LIMIT, cursor=cursor), task_id)
        for line in page.items:
            yield f"{line.message}\n"
        cursor = page.next_cursor
        if cursor is None:
            return


def _paging(request: Request) -> tuple[int, str | None]:
    """The page size and token; other parameters are ignored, as everywhere in WES.

    Raises `InvalidRequest`.
    """
    size = request.query_params.get("page_size")
    if size is None:
        return _DEFAULT_PAGE_SIZE, request.query_params.get("page_token") or None
    digits = size.removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and 0 < int(digits) < 2**63):
        raise InvalidRequest(
            "page_size must be a positive number.", "Correct it, or leave it out for pages of 50."
        )
    return min(int(digits), MAX_LIMIT), request.query_params.get("page_token") or None


def _query(kind: type[Kind], limit: int, cursor: str | None) -> Kind:
    try:
        return kind(limit=limit, cursor=cursor)
    except ValidationError as error:
        raise InvalidRequest(
            "The page_token is invalid.", "Send the next_page_token of the previous page."
        ) from error


def _has_files(form: Any) -> bool:
    return any(not isinstance(part, str) for part in form.getlist("workflow_attachment"))


def _base_url(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _no(what: str) -> NotFound:
    return NotFound(f"There is no {what}.", f"GET {PREFIX}/runs lists the runs.")
