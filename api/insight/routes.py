"""The routes for a job's graph (SVG), its research object (RO-Crate), what it took, and comparisons."""

from typing import Annotated, Any
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field

from api.insight.comparison import Compared, Comparison, comparison_of
from api.insight.cost import Prices
from api.insight.crates import MOST_RULE_JOBS, crate_of
from api.insight.graphs import GraphOf
from api.insight.history import history_of
from api.insight.usage import Usage, WorkflowUsage, rules_of, usage_of
from api.insight.usage_drawing import draw_usage
from api.jobs.dependencies import IfNoneMatch, WithJobs, WithOutputs
from api.jobs.outputs import Outputs, check_files_are_here
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.translation import rule_job_from
from api.services import WithServices
from api.web.etags import etag_of, named_tags
from api.web.problems import NotFound, UnknownWorkflow, refusals
from api.web.queries import JobQuery
from api.web.schemas import Job
from api.web.statuses import JobStatus

insight_router = APIRouter()

_SVG = "image/svg+xml"
_SVG_FILE: dict[str, Any] = {
    _SVG: {
        "schema": {"type": "string"},
        "example": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 480">…</svg>',
    }
}
_ZIP = "application/zip"
_ZIP_FILE = {"schema": {"type": "string", "format": "binary"}, "example": "PK…"}
_AS_A_PICTURE_ONLY = {
    # Names in it come from workflows. If one were ever more than text, browsers would still not run it.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class GraphQuery(BaseModel):
    """Selects a graph of a job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: GraphOf = Field(
        default=GraphOf.RULES,
        description="`rules`: a box per rule, with counts of its rule jobs. `jobs`: a box per rule job.",
    )


@insight_router.get(
    "/jobs/{job_id}/graph.svg",
    operation_id="drawJob",
    summary="Draw the graph of a job",
    tags=["jobs"],
    response_class=Response,
    responses={
        200: {
            "description": "The drawing.",
            "content": _SVG_FILE,
        },
        304: {"description": "The drawing has not changed since the response with that `ETag`."},
        **refusals(404, 422),
    },
)
async def draw_job(
    job_id: UUID,
    query: Annotated[GraphQuery, Query()],
    jobs: WithJobs,
    services: WithServices,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Shows the dependencies and the progress of each part. While the job runs, it is a second old at most.

    A job with more than 500 rule jobs can be drawn with `of=rules` only.
    """
    svg = await services.drawings.of(await jobs.get(job_id), query.of)
    headers = {"ETag": etag_of(svg), **_AS_A_PICTURE_ONLY}
    if if_none_match and {"*", headers["ETag"]} & named_tags(if_none_match):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(svg, media_type=_SVG, headers=headers)


@insight_router.get(
    "/jobs/{job_id}/ro-crate",
    operation_id="packJob",
    summary="Download a job as a research object",
    tags=["outputs"],
    response_class=Response,
    responses={
        200: {"description": "The crate: a zip file.", "content": {_ZIP: _ZIP_FILE}},
        **refusals(404, 409, 422, 500),
    },
)
async def pack_job(job_id: UUID, request: Request, jobs: WithJobs, outputs: WithOutputs) -> Response:
    """A Workflow Run RO-Crate: what ran and when, with which configuration, and the results.

    It contains the metadata, the Snakefile and the job spec. Outputs are listed with the addresses at
    which this service provides them, and with sizes and checksums.
    """
    check_files_are_here(await jobs.get(job_id))
    history = await history_of(jobs, job_id, MOST_RULE_JOBS)
    manifest = await outputs.reads.in_thread(jobs.caller.name, outputs.manifest, job_id)
    if manifest.snakefile is None:
        raise NotFound(
            f"The job {job_id} has no crate: it ended before it published outputs, or ran no Snakefile.",
            "Submit the workflow again with the engine `snakemake`.",
        )
    base_url = str(request.base_url).rstrip("/")
    crate = await anyio.to_thread.run_sync(crate_of, history, manifest, manifest.snakefile, base_url)
    headers = {
        "Content-Disposition": f'attachment; filename="{job_id}.crate.zip"',
        "Cache-Control": "no-cache",
    }
    return Response(crate, media_type=_ZIP, headers=headers)


Margin = Annotated[
    float, Query(ge=0, le=10, description="How much more is suggested than was taken, as a fraction.")
]


@insight_router.get(
    "/jobs/{job_id}/usage",
    operation_id="getUsage",
    summary="Read what a job took",
    tags=["jobs"],
    responses=refusals(404, 422),
)
async def get_usage(job_id: UUID, jobs: WithJobs, services: WithServices, margin: Margin = 0.2) -> Usage:
    """Time, CPU and memory by rule, what was asked for, and what would have been enough."""
    return await _usage(await jobs.get(job_id), jobs, services.prices, margin)


@insight_router.get(
    "/jobs/{job_id}/usage.svg",
    operation_id="drawUsage",
    summary="Draw what a job took",
    tags=["jobs"],
    response_class=Response,
    responses={200: {"description": "The drawing.", "content": _SVG_FILE}, **refusals(404, 422)},
)
async def draw_usage_of_job(job_id: UUID, jobs: WithJobs, services: WithServices) -> Response:
    """A row for each rule: its time, CPU efficiency and memory against what was asked for."""
    job = await jobs.get(job_id)
    svg = await anyio.to_thread.run_sync(draw_usage, await _usage(job, jobs, services.prices), job.name)
    return Response(svg, media_type=_SVG, headers=_AS_A_PICTURE_ONLY)


async def _usage(job: Job, jobs: VisibleJobs, prices: Prices, margin: float = 0.2) -> Usage:
    flow_run = await jobs.reads.flow_runs.whole(job.id)
    rows = await jobs.reads.rule_jobs.rows(job.id)
    cores = flow_run.parameters.get("cores", 1)
    found = await anyio.to_thread.run_sync(
        usage_of, job, cores if isinstance(cores, int) else 1, rows, margin
    )
    cost = prices.cost(flow_run.job_variables or {}, found.seconds)
    return found.model_copy(update={"cost_usd": cost})


@insight_router.get(
    "/workflows/{name}/usage",
    operation_id="getWorkflowUsage",
    summary="Read what the jobs of a registered workflow took",
    tags=["workflows"],
    responses=refusals(404, 422),
)
async def get_workflow_usage(
    name: str,
    jobs: WithJobs,
    most_jobs: Annotated[int, Query(ge=1, le=100, description="How many jobs to read, the newest.")] = 20,
    margin: Margin = 0.2,
) -> WorkflowUsage:
    """By rule, over the rule jobs of its newest completed jobs."""
    query = JobQuery(workflow=name, status=(JobStatus.COMPLETED,), limit=most_jobs)
    try:
        page = await jobs.list(query)
    except UnknownWorkflow as unknown:
        raise NotFound(unknown.detail, unknown.resolution) from unknown
    rows = [row for job in page.items for row in await jobs.reads.rule_jobs.rows(job.id)]
    rules = await anyio.to_thread.run_sync(lambda: rules_of(map(rule_job_from, rows), margin))
    return WorkflowUsage(jobs=len(page.items), rules=rules)


@insight_router.get(
    "/jobs/{job_id}/comparison/{other_id}",
    operation_id="compareJobs",
    summary="Compare two jobs",
    tags=["jobs"],
    responses=refusals(404, 422, 500),
)
async def compare_jobs(
    job_id: UUID, other_id: UUID, jobs: WithJobs, outputs: WithOutputs, margin: Margin = 0.2
) -> Comparison:
    """What was asked for, versions, time and memory by rule, and outputs by checksum."""
    one, other = [await _compared(each, jobs, outputs) for each in (job_id, other_id)]
    return await anyio.to_thread.run_sync(comparison_of, one, other, margin)


async def _compared(job_id: UUID, jobs: VisibleJobs, outputs: Outputs) -> Compared:
    job = await jobs.get(job_id)
    row = await jobs.reads.flow_runs.row(job_id)
    rows = await jobs.reads.rule_jobs.rows(job_id)
    manifest = await outputs.reads.in_thread(jobs.caller.name, outputs.manifest, job_id)
    return Compared(
        job=job,
        parameters=dict(row.parameters),
        rule_jobs=tuple(map(rule_job_from, rows)),
        manifest=manifest,
    )
