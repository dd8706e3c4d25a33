"""Makes registered workflows known in Prefect: as deployments of the flow."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound

from api.prefect.retries import translating_errors
from flows.contract.registered import RegisteredVersion
from flows.contract.spec import FLOW_NAME, Label

_OF_THE_GROUP = (
    "flow_id",
    "work_pool_name",
    "work_queue_name",
    "job_variables",
    "entrypoint",
    "path",
    "pull_steps",
)
"""What a workflow has in common with the group that runs it."""

_OF_A_SCHEDULE = {"schedule", "active", "parameters", "slug", "max_scheduled_runs"}
_TAG = "registered"


class Deployments:
    """Every method may raise `PrefectUnavailable`."""

    def __init__(self, client: PrefectClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def offer(
        self, group_deployment: UUID, version: RegisteredVersion, form: Mapping[str, Any]
    ) -> None:
        """Make this version the one that the deployment of the workflow runs. Schedules stay."""
        await self._write(
            group_deployment,
            version.name,
            {
                "version": version.version,
                "description": version.description.readme,
                "parameters": version.job,
                "parameter_openapi_schema": form,
                "enforce_parameter_schema": True,
                "paused": False,
            },
            {Label.WORKFLOW_VERSION: version.version},
        )

    async def withdraw(self, group_deployment: UUID, name: str) -> None:
        """Pause the schedules of a workflow without a version. Its jobs stay visible."""
        await self._write(group_deployment, name, {"version": None, "paused": True}, {})

    async def _write(
        self,
        group_deployment: UUID,
        name: str,
        fields: Mapping[str, Any],
        labels: Mapping[Label, str],
    ) -> None:
        async with translating_errors(self._timeout_seconds):
            group = await self._client.request(
                "GET", "/deployments/{id}", path_params={"id": group_deployment}
            )
            shared = {key: value for key, value in group.json().items() if key in _OF_THE_GROUP and value}
            body = {
                **shared,
                **fields,
                "name": name,
                "tags": [_TAG],
                "labels": {Label.WORKFLOW_NAME: name, **labels},
                "schedules": await self._schedules(name),
            }
            await self._client.request("POST", "/deployments/", json=body)

    async def _schedules(self, name: str) -> list[dict[str, Any]]:
        """Those of the deployment: Prefect removes all that come with no request to make it again."""
        try:
            deployment = await self._client.read_deployment_by_name(f"{FLOW_NAME}/{name}")
        except ObjectNotFound:
            return []
        return [schedule.model_dump(mode="json", include=_OF_A_SCHEDULE) for schedule in deployment.schedules]
