"""The routes of `/workflows/{name}/schedules`."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Response, status

from api.jobs.dependencies import WithJobs
from api.services import WithServices
from api.web.bodies import JsonBodyRoute
from api.web.problems import refusals
from api.workflows.routes import WithWorkflow
from api.workflows.schedule_schemas import LONGEST_SLUG, SLUG_PATTERN, NewSchedule, Schedule, ScheduleList
from api.workflows.scheduling import Scheduling

schedules_router = APIRouter(route_class=JsonBodyRoute, tags=["workflows"])

Slug = Annotated[str, Path(pattern=SLUG_PATTERN, max_length=LONGEST_SLUG, examples=["weekly"])]


async def _scheduling(services: WithServices) -> Scheduling:
    return services.scheduling


WithScheduling = Annotated[Scheduling, Depends(_scheduling)]


@schedules_router.get(
    "/workflows/{name}/schedules",
    operation_id="listSchedules",
    summary="List the schedules of a registered workflow",
    responses=refusals(404, 422),
)
async def list_schedules(workflow: WithWorkflow, scheduling: WithScheduling) -> ScheduleList:
    """Those that were made in Prefect are among them."""
    return ScheduleList(items=[Schedule.of(row) for row in await scheduling.of(workflow)])


@schedules_router.put(
    "/workflows/{name}/schedules/{slug}",
    operation_id="putSchedule",
    summary="Run a registered workflow by a schedule",
    responses={
        200: {"description": "The schedule is as the request says.", "model": Schedule},
        201: {"description": "The schedule is made.", "model": Schedule},
        **refusals(404, 413, 415, 422),
    },
)
async def put_schedule(
    slug: Slug,
    new: Annotated[NewSchedule, Body()],
    workflow: WithWorkflow,
    jobs: WithJobs,
    scheduling: WithScheduling,
    response: Response,
) -> Schedule:
    """Its jobs run the version that is the default one at the time.

    `parameters` are checked as those of a job are. The same request again changes nothing.
    """
    made, is_new = await scheduling.put(jobs, workflow, slug, new)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return Schedule.of(made)


@schedules_router.delete(
    "/workflows/{name}/schedules/{slug}",
    operation_id="deleteSchedule",
    summary="Delete a schedule",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=refusals(404, 422),
)
async def delete_schedule(slug: Slug, workflow: WithWorkflow, scheduling: WithScheduling) -> None:
    """Its jobs stay; those that have not started are removed."""
    await scheduling.delete(workflow, slug)
