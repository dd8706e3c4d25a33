"""The routes of `/workflows/{name}/triggers`."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Response, status

from api.jobs.dependencies import WithJobs
from api.services import WithServices
from api.web.bodies import JsonBodyRoute
from api.web.problems import refusals
from api.workflows.routes import WithWorkflow
from api.workflows.schedule_routes import Slug
from api.workflows.trigger_schemas import NewTrigger, Trigger, TriggerList
from api.workflows.triggering import Triggering

triggers_router = APIRouter(route_class=JsonBodyRoute, tags=["workflows"])


async def _triggering(services: WithServices) -> Triggering:
    return services.triggering


WithTriggering = Annotated[Triggering, Depends(_triggering)]


@triggers_router.get(
    "/workflows/{name}/triggers",
    operation_id="listTriggers",
    summary="List the triggers of a registered workflow",
    responses=refusals(404, 422),
)
async def list_triggers(workflow: WithWorkflow, triggering: WithTriggering) -> TriggerList:
    return TriggerList(items=list(await triggering.of(workflow)))


@triggers_router.put(
    "/workflows/{name}/triggers/{slug}",
    operation_id="putTrigger",
    summary="Run a registered workflow when a job of another one has completed",
    responses={
        200: {"description": "The trigger is as the request says.", "model": Trigger},
        201: {"description": "The trigger is made.", "model": Trigger},
        **refusals(404, 413, 415, 422),
    },
)
async def put_trigger(
    slug: Slug,
    new: Annotated[NewTrigger, Body()],
    workflow: WithWorkflow,
    jobs: WithJobs,
    triggering: WithTriggering,
    response: Response,
) -> Trigger:
    """It is an automation in Prefect. Dry runs do not fire it.

    `parameters` are checked as those of a job are. The same request again changes nothing.
    """
    made, is_new = await triggering.put(jobs, workflow, slug, new)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return made


@triggers_router.delete(
    "/workflows/{name}/triggers/{slug}",
    operation_id="deleteTrigger",
    summary="Delete a trigger",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=refusals(404, 422),
)
async def delete_trigger(slug: Slug, workflow: WithWorkflow, triggering: WithTriggering) -> None:
    """Its jobs stay."""
    await triggering.delete(workflow, slug)
