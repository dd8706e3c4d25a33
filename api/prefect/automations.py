"""Automations of Prefect that run a deployment when something has happened."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from pydantic import BaseModel, ConfigDict, TypeAdapter

from api.prefect.retries import translating_errors
from api.web.queries import MAX_LIMIT


class AutomationRow(BaseModel):
    """An automation as Prefect returns it; other columns are ignored."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    name: str
    enabled: bool = True
    trigger: dict[str, Any]
    actions: list[dict[str, Any]]

    @property
    def deployment_id(self) -> UUID | None:
        """The deployment that it runs."""
        found = self.actions[0].get("deployment_id") if self.actions else None
        return None if found is None else UUID(found)


_ROWS = TypeAdapter(list[AutomationRow])


class Automations:
    """Every method may raise `PrefectUnavailable` and `RefusedByPrefect`."""

    def __init__(self, client: PrefectClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def beginning_with(self, prefix: str) -> Sequence[AutomationRow]:
        """Those whose names begin so, by name."""
        found: list[AutomationRow] = []
        offset = 0
        while True:
            body = {"sort": "NAME_ASC", "limit": MAX_LIMIT, "offset": offset}
            page = _ROWS.validate_json(await self._request("POST", "/automations/filter", body))
            found += [row for row in page if row.name.startswith(prefix)]
            if len(page) < MAX_LIMIT:
                return found
            offset += len(page)

    async def create(self, automation: Mapping[str, Any]) -> None:
        await self._request("POST", "/automations/", automation)

    async def replace(self, automation_id: UUID, automation: Mapping[str, Any]) -> None:
        await self._request("PUT", f"/automations/{automation_id}", automation)

    async def delete(self, automation_id: UUID) -> None:
        await self._request("DELETE", f"/automations/{automation_id}")

    async def _request(self, method: Any, path: Any, body: Any = None) -> bytes:
        async with translating_errors(self._timeout_seconds):
            response = await self._client.request(method, path, **({} if body is None else {"json": body}))
        return response.content
