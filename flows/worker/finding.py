"""Finds the jobs of a work pool that have lost their worker, their flow process, or both."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from flows.contract.spec import Label
from flows.worker.lost_jobs import Found, Lost, Start, is_lost, judge, may_be_lost, sign_of
from flows.worker.settling import active_flow_runs, claimed_by
from flows.workspace.workspace import Workspace


@dataclass(frozen=True)
class Finder:
    """What a worker needs to know about itself and its jobs."""

    name: str
    """The worker's."""
    work_pool: str
    begun_at: datetime
    """When the worker began."""
    is_ours: Callable[[UUID], bool]
    """Whether the worker runs a job, or is about to."""
    workspace: Callable[[UUID], Workspace]

    async def find(self, client: PrefectClient) -> list[tuple[UUID, Lost, bool]]:
        """Every job that is neither scheduled nor final: what it has lost, and whether to cancel it."""
        return [await self._finding(client, run) for run in await active_flow_runs(client, self.work_pool)]

    async def _finding(self, client: PrefectClient, flow_run: FlowRun) -> tuple[UUID, Lost, bool]:
        found = Found(
            is_ours=self.is_ours(flow_run.id),
            is_cancelling=flow_run.state is not None and flow_run.state.is_cancelling(),
            sign=sign_of(self.workspace(flow_run.id).holder()),
        )
        lost = judge(found)
        if lost is Lost.FLOW_PROCESS and _has_begun_nothing(flow_run):
            lost = Lost.BEFORE_ITS_START
        elif lost is Lost.BEFORE_ITS_START and not await self._was_never_started(client, flow_run):
            lost = Lost.NOTHING
        return flow_run.id, lost, found.is_to_be_cancelled

    async def _was_never_started(self, client: PrefectClient, flow_run: FlowRun) -> bool:
        if flow_run.state is None:
            return False
        started_by = claimed_by(flow_run.state.message) or flow_run.labels.get(Label.WORKER)
        start = Start(
            age=datetime.now(UTC) - flow_run.state.timestamp,
            is_of_before=flow_run.state.timestamp < self.begun_at,
            has_run=flow_run.start_time is not None,
            worker=None if started_by is None else str(started_by),
        )
        if not may_be_lost(start, this_worker=self.name):
            return False
        workers = await client.read_workers_for_work_pool(self.work_pool)
        online = {worker.name for worker in workers if worker.status == "ONLINE"}
        return is_lost(start, online, this_worker=self.name) and not self.is_ours(flow_run.id)


def _has_begun_nothing(flow_run: FlowRun) -> bool:
    """Its flow process ended before Prefect knew it as running, so it has not touched the workflow."""
    return flow_run.start_time is None and flow_run.state is not None and flow_run.state.is_pending()
