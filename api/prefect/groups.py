"""Groups, and the registered workflows that belong to them: the deployments of the flow."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort

from api.web.queries import MAX_LIMIT
from flows.contract.spec import ATTACHED_GROUP, FLOW_NAME, Label

LIFETIME_SECONDS = 5.0
"""How long a listing may miss the jobs of a group that was deployed just now."""


@dataclass(frozen=True, slots=True)
class Group:
    """A deployment of the flow, and the work pool whose workers take its jobs."""

    deployment_id: UUID
    name: str
    work_pool: str | None
    workflow: str | None = None
    """The registered workflow that this deployment is, if it is not the group itself."""
    version: str | None = None
    """The version of the workflow that runs if none is named."""

    @property
    def takes_jobs(self) -> bool:
        """Whether workers run its jobs. Those of the group of attached runs start elsewhere."""
        return self.name != ATTACHED_GROUP

    @classmethod
    def of(cls, deployment: DeploymentResponse) -> "Group":
        workflow = deployment.labels.get(Label.WORKFLOW_NAME)
        pool = deployment.work_pool_name
        if workflow is None or deployment.work_queue_name is None:
            return cls(deployment.id, deployment.name, pool)
        return cls(deployment.id, deployment.work_queue_name, pool, str(workflow), deployment.version)


def of_this_flow() -> FlowFilter:
    """What belongs to the flow of all jobs."""
    return FlowFilter(name=FlowFilterName(any_=[FLOW_NAME]))


async def read_groups(client: PrefectClient) -> Sequence[Group]:
    """Every group and every registered workflow, by the names of their deployments."""
    groups: list[Group] = []
    while True:
        page = await client.read_deployments(
            flow_filter=of_this_flow(),
            sort=DeploymentSort.NAME_ASC,
            limit=MAX_LIMIT,
            offset=len(groups),
        )
        groups += map(Group.of, page)
        if len(page) < MAX_LIMIT:
            return groups


class GroupCache:
    """The groups, read again when they are old or one is missing."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._groups: Mapping[UUID, Group] = {}
        self._expires = 0.0

    async def names(self) -> Mapping[UUID, str]:
        """The name of the group by the id of each of its deployments."""
        return {each: group.name for each, group in (await self._current()).items()}

    async def own(self, group: str) -> Mapping[str, Group]:
        """The groups themselves by name, read again if `group` is not among them."""
        found = _own(await self._current())
        return found if group in found else _own(await self._refreshed())

    async def workflows(self, workflow: str | None = None) -> Mapping[str, Group]:
        """The registered workflows by name, read again if `workflow` is not among them."""
        found = _workflows(await self._current())
        return found if workflow is None or workflow in found else _workflows(await self._refreshed())

    async def name_of(self, deployment_id: UUID | None) -> str | None:
        """The group of this deployment; none if the deployment is of another flow."""
        if deployment_id is None:
            return None
        group = (await self._current()).get(deployment_id) or (await self._refreshed()).get(deployment_id)
        return None if group is None else group.name

    def forget(self) -> None:
        """Read the groups again when they are asked for next."""
        self._expires = 0.0

    async def _current(self) -> Mapping[UUID, Group]:
        return self._groups if time.monotonic() < self._expires else await self._refreshed()

    async def _refreshed(self) -> Mapping[UUID, Group]:
        self._groups = {group.deployment_id: group for group in await read_groups(self._client)}
        self._expires = time.monotonic() + LIFETIME_SECONDS
        return self._groups


def _own(groups: Mapping[UUID, Group]) -> Mapping[str, Group]:
    return {group.name: group for group in groups.values() if group.workflow is None}


def _workflows(groups: Mapping[UUID, Group]) -> Mapping[str, Group]:
    return {group.workflow: group for group in groups.values() if group.workflow is not None}
