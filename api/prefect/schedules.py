"""The schedules of a deployment in Prefect."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from pydantic import BaseModel, ConfigDict, TypeAdapter

from api.prefect.retries import translating_errors


class ScheduleRow(BaseModel):
    """A schedule as Prefect returns it; other columns are ignored."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    slug: str | None = None
    active: bool = True
    schedule: dict[str, Any]
    parameters: dict[str, Any] = {}


_ROWS = TypeAdapter(list[ScheduleRow])


class Schedules:
    """Every method may raise `PrefectUnavailable` and `RefusedByPrefect`."""

    def __init__(self, client: PrefectClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def of(self, deployment_id: UUID) -> Sequence[ScheduleRow]:
        """All of the deployment, also those that were made in Prefect."""
        return _ROWS.validate_json(await self._request("GET", deployment_id, ""))

    async def create(self, deployment_id: UUID, fields: Mapping[str, Any]) -> None:
        await self._request("POST", deployment_id, "", [fields])

    async def update(self, deployment_id: UUID, schedule_id: UUID, fields: Mapping[str, Any]) -> None:
        """Prefect removes the runs that it has made in advance, and makes them again."""
        await self._request("PATCH", deployment_id, f"/{schedule_id}", fields)

    async def delete(self, deployment_id: UUID, schedule_id: UUID) -> None:
        """Its runs that have not started are removed, too."""
        await self._request("DELETE", deployment_id, f"/{schedule_id}")

    async def _request(self, method: Any, deployment_id: UUID, path: str, body: Any = None) -> bytes:
        async with translating_errors(self._timeout_seconds):
            response = await self._client.request(
                method,
                "/deployments/{id}/schedules" + path,  # type: ignore[arg-type]  # a literal for each path
                path_params={"id": deployment_id},
                **({} if body is None else {"json": body}),
            )
        return response.content
