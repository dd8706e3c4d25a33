"""Groups: the deployments of the flow, by name."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.sorting import DeploymentSort

from api.web.queries import MAX_LIMIT
from flows.contract.spec import ATTACHED_GROUP, FLOW_NAME

LIFETIME_SECONDS = 5.0
"""How long a listing may miss the jobs of a group that was deployed just now."""


@dataclass(frozen=True, slots=True)
class Group:
    """A deployment of the flow, and the work pool whose workers take its jobs."""

    deployment_id: UUID
    name: str
    work_pool: str | None

    @property
    def takes_jobs(self) -> bool:
        """Whether workers run its jobs. Those of the group of attached runs start elsewhere."""
        return self.name != ATTACHED_GROUP


async def read_groups(client: PrefectClient) -> Sequence[Group]:
    """Every group, by name."""
    groups: list[Group] = []
    while True:
        page = await client.read_deployments(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW_NAME])),
            sort=DeploymentSort.NAME_ASC,
            limit=MAX_LIMIT,
            offset=len(groups),
        )
        groups += [Group(row.id, row.name, row.work_pool_name) for row in page]
        if len(page) < MAX_LIMIT:
            return groups


class GroupCache:
    """The names of the groups, read again when they are old or one is missing."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._names: Mapping[UUID, str] = {}
        self._expires = 0.0

    async def names(self) -> Mapping[UUID, str]:
        """The name of every group by the id of its deployment."""
        return self._names if time.monotonic() < self._expires else await self._refreshed()

    async def names_with(self, group: str) -> Mapping[UUID, str]:
        """The same, read again if `group` is not among them."""
        names = await self.names()
        return names if group in names.values() else await self._refreshed()

    async def name_of(self, deployment_id: UUID | None) -> str | None:
        """The group that is this deployment; none if the deployment is of another flow."""
        if deployment_id is None:
            return None
        names = await self.names()
        return names.get(deployment_id) or (await self._refreshed()).get(deployment_id)

    def forget(self) -> None:
        """Read the groups again when they are asked for next."""
        self._expires = 0.0

    async def _refreshed(self) -> Mapping[UUID, str]:
        self._names = {group.deployment_id: group.name for group in await read_groups(self._client)}
        self._expires = time.monotonic() + LIFETIME_SECONDS
        return self._names
