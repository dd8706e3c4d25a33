"""The routes of `/workflows`."""

from collections.abc import Mapping
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Body, Depends, Path, Query, Response, status

from api.jobs.dependencies import WithJobs
from api.prefect.groups import Group
from api.services import WithServices
from api.web.bodies import JsonBodyRoute
from api.web.problems import NotFound, UnknownWorkflow, refusals
from api.web.schemas import Job
from api.workflows.registration import Registration, no_version
from api.workflows.schemas import (
    NewVersion,
    RegisteredWorkflow,
    WorkflowDetails,
    WorkflowList,
    WorkflowVersion,
    WorkflowVersionDetails,
)
from flows.contract.registered import LONGEST_NAME, LONGEST_VERSION, NAME_PATTERN, VERSION_PATTERN

workflows_router = APIRouter(route_class=JsonBodyRoute, tags=["workflows"])

LONGEST_WAIT = 60

Name = Annotated[str, Path(pattern=NAME_PATTERN, max_length=LONGEST_NAME, examples=["rnaseq"])]
Version = Annotated[str, Path(pattern=VERSION_PATTERN, max_length=LONGEST_VERSION, examples=["1.2.0"])]


async def _registration(services: WithServices) -> Registration:
    return services.registration


WithRegistration = Annotated[Registration, Depends(_registration)]


async def _workflow(name: Name, jobs: WithJobs) -> Group:
    try:
        return await jobs.workflow(name)
    except UnknownWorkflow as unknown:
        raise NotFound(unknown.detail, unknown.resolution) from unknown


WithWorkflow = Annotated[Group, Depends(_workflow)]


@workflows_router.put(
    "/workflows/{name}/versions/{version}",
    operation_id="registerWorkflow",
    summary="Register a version of a workflow",
    responses={
        200: {
            "description": "The version was registered already, by the same request.",
            "model": WorkflowVersion,
        },
        201: {"description": "The version is registered.", "model": WorkflowVersion},
        202: {"description": "This job still reads the workflow: send the same request again.", "model": Job},
        **refusals(404, 409, 413, 415, 422),
    },
)
async def register_workflow(
    name: Name,
    version: Version,
    new: Annotated[NewVersion, Body()],
    jobs: WithJobs,
    registration: WithRegistration,
    services: WithServices,
    response: Response,
    wait: Annotated[
        float,
        Query(ge=0, le=LONGEST_WAIT, description="How many seconds to wait for the workflow to be read."),
    ] = 10,
) -> WorkflowVersion | Job:
    """A job of the group reads the workflow: its commit, its README, and the schema of its configuration.

    The version then never changes. With `default`, jobs that name no version run it, and the run form in
    Prefect has its fields.
    """
    longest = services.settings.longest_wait_seconds
    made, is_new = await registration.register(jobs, name, version, new, min(wait, longest))
    if isinstance(made, Job):
        response.status_code = status.HTTP_202_ACCEPTED
        response.headers["Location"] = made.links.self
        return made
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return WorkflowVersion.of(made, (await jobs.workflow(name)).version)


@workflows_router.get(
    "/workflows",
    operation_id="listWorkflows",
    summary="List the registered workflows",
    responses=refusals(422),
)
async def list_workflows(jobs: WithJobs, services: WithServices) -> WorkflowList:
    workflows: Mapping[str, Group] = await jobs.workflows()
    return WorkflowList(
        items=[_shown(workflows[name], services.prefect_ui_url) for name in sorted(workflows)]
    )


@workflows_router.get(
    "/workflows/{name}",
    operation_id="getWorkflow",
    summary="Get a registered workflow and its versions",
    responses=refusals(404, 422),
)
async def get_workflow(name: Name, workflow: WithWorkflow, services: WithServices) -> WorkflowDetails:
    versions = await anyio.to_thread.run_sync(services.registry.versions, name)
    return WorkflowDetails(
        **_shown(workflow, services.prefect_ui_url).model_dump(),
        versions=[WorkflowVersion.of(each, workflow.version) for each in versions],
    )


@workflows_router.get(
    "/workflows/{name}/versions/{version}",
    operation_id="getWorkflowVersion",
    summary="Get a version, with its README and the schema of its configuration",
    responses=refusals(404, 422),
)
async def get_workflow_version(
    name: Name, version: Version, workflow: WithWorkflow, services: WithServices
) -> WorkflowVersionDetails:
    found = await anyio.to_thread.run_sync(services.registry.read, name, version)
    if found is None:
        unknown = no_version(name, version)
        raise NotFound(unknown.detail, unknown.resolution)
    return WorkflowVersionDetails.of(found, workflow.version)


@workflows_router.post(
    "/workflows/{name}/versions/{version}/retire",
    operation_id="retireWorkflowVersion",
    summary="Refuse new jobs of a version",
    responses=refusals(404, 422),
)
async def retire_workflow_version(
    name: Name, version: Version, workflow: WithWorkflow, jobs: WithJobs, registration: WithRegistration
) -> WorkflowVersion:
    """Its jobs stay, and can be resumed. If it was the default, the newest other version becomes it."""
    try:
        retired = await registration.retire(jobs, workflow, version)
    except UnknownWorkflow as unknown:
        raise NotFound(unknown.detail, unknown.resolution) from unknown
    return WorkflowVersion.of(retired, (await jobs.workflow(name)).version)


def _shown(workflow: Group, prefect_ui_url: str) -> RegisteredWorkflow:
    return RegisteredWorkflow(
        name=workflow.workflow or "",
        group=workflow.name,
        default_version=workflow.version,
        prefect=f"{prefect_ui_url}/deployments/deployment/{workflow.deployment_id}",
    )
