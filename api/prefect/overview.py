"""Reads about all jobs and groups at once: for metrics, health, webhooks and retention, not for clients."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterStartTime,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import WorkPoolStatus
from prefect.client.schemas.sorting import FlowRunSort

from api.prefect.counting import StateCount, count_by_state
from api.prefect.filters import flow_run_filter
from api.prefect.groups import Group, read_groups
from api.prefect.retries import translating_errors
from api.prefect.rows import FLOW_RUN_ROWS, FlowRunRow
from api.web.problems import ProblemError
from api.web.queries import MAX_LIMIT, JobQuery
from api.web.statuses import (
    FINAL_STATUSES,
    OPEN_STATUSES,
    JobStatus,
    RuleJobStatus,
    job_status,
    rule_job_status,
)
from flows.contract.spec import Label

OVERLAP = timedelta(seconds=60)
"""How late a state may reach Prefect: each read overlaps the previous one by this time."""

_PROBE_SECONDS = 2.0
"""A server that is well answers its probes at once."""


class Overview:
    """Every method may raise `PrefectUnavailable`."""

    def __init__(self, client: PrefectClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def groups(self) -> Sequence[Group]:
        """Every group, by name."""
        async with self._reading():
            return await read_groups(self._client)

    async def pools_with_workers(self, groups: Collection[Group]) -> frozenset[str]:
        """The work pools of these groups that have a worker online, or need none."""
        names = sorted({group.work_pool for group in groups if group.work_pool})
        async with self._reading():
            pools = await self._client.read_work_pools(
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=names))
            )
        return frozenset(pool.name for pool in pools if pool.status is WorkPoolStatus.READY)

    async def lacks_its_database(self) -> bool:
        """Whether the Prefect server answers, and can't reach its database."""
        return await self._answers("/health") and not await self._answers("/ready")

    async def lacks_its_broker(self) -> bool:
        """Whether the Prefect server, whose database answers, can't reach Valkey, and so creates no jobs."""
        return not await self._answers("/ready")

    async def _answers(self, path: Literal["/health", "/ready"]) -> bool:
        try:
            async with translating_errors(min(self._timeout_seconds, _PROBE_SECONDS)):
                await self._client.request("GET", path)
        except ProblemError:
            return False
        return True

    async def open_jobs(self, group: Group) -> Mapping[JobStatus, int]:
        """How many jobs of the group are in each open status.

        Prefect counts them by an index, so the number of ended jobs does not matter.
        """
        counts: Counter[JobStatus] = Counter(dict.fromkeys(OPEN_STATUSES, 0))
        for row in await self._counts("/flow_runs/history", [group]):
            counts[job_status(row.state_type)] += row.count_runs
        return counts

    async def rule_jobs_of_open_jobs(self, groups: Collection[Group]) -> Mapping[RuleJobStatus, int]:
        counts: Counter[RuleJobStatus] = Counter(dict.fromkeys(RuleJobStatus, 0))
        for row in await self._counts("/task_runs/history", groups):
            counts[rule_job_status(row.state_type, row.state_name)] += row.count_runs
        return counts

    def started(self, since: datetime) -> "Sweep":
        """Jobs that started, from `since` on."""

        async def read(after: datetime, offset: int) -> Sequence[FlowRunRow]:
            flow_runs = FlowRunFilter(start_time=FlowRunFilterStartTime.model_validate({"after_": after}))
            return await self._read(flow_runs, FlowRunSort.START_TIME_DESC, offset)

        return Sweep(read, lambda row: row.start_time, since)

    def ended(self, since: datetime) -> "Sweep":
        """Jobs that ended in any way, from `since` on."""

        async def read(after: datetime, offset: int) -> Sequence[FlowRunRow]:
            flow_runs = FlowRunFilter(end_time=FlowRunFilterEndTime.model_validate({"after_": after}))
            return await self._read(flow_runs, FlowRunSort.END_TIME_DESC, offset)

        return Sweep(read, lambda row: row.end_time, since)

    async def ended_before(self, moment: datetime, offset: int) -> Sequence[UUID]:
        """A page of jobs that ended before `moment`, oldest first, without the first `offset`."""
        flow_runs = flow_run_filter(
            JobQuery(status=tuple(FINAL_STATUSES)),
            [group.deployment_id for group in await self.groups()],
            None,
        )
        flow_runs.end_time = FlowRunFilterEndTime.model_validate({"before_": moment})
        return [row.id for row in await self._read(flow_runs, FlowRunSort.START_TIME_ASC, offset)]

    async def label(self, job_id: UUID, labels: Mapping[Label, str]) -> None:
        """Adds labels to a job. Raises `RefusedByPrefect` if it does not exist."""
        async with self._reading():
            await self._client.update_flow_run_labels(
                job_id, {str(label): value for label, value in labels.items()}
            )

    async def _read(self, flow_runs: FlowRunFilter, sort: FlowRunSort, offset: int) -> Sequence[FlowRunRow]:
        body = {"flow_runs": _dumped(flow_runs), "sort": sort, "limit": MAX_LIMIT, "offset": offset}
        async with self._reading():
            response = await self._client.request("POST", "/flow_runs/filter", json=body)
        return FLOW_RUN_ROWS.validate_json(response.content)

    async def _counts(
        self, path: Literal["/flow_runs/history", "/task_runs/history"], groups: Collection[Group]
    ) -> Sequence[StateCount]:
        """Counts for the open jobs of these groups."""
        deployment_ids = [group.deployment_id for group in groups]
        flow_runs = flow_run_filter(JobQuery(status=OPEN_STATUSES), deployment_ids, None)
        async with self._reading():
            return await count_by_state(self._client, path, flow_runs)

    def _reading(self) -> AbstractAsyncContextManager[None]:
        return translating_errors(self._timeout_seconds)


class Sweep:
    """Reads jobs to which something has happened since the last call: each once for each time it happens."""

    def __init__(
        self,
        read: Callable[[datetime, int], Awaitable[Sequence[FlowRunRow]]],
        moment_of: Callable[[FlowRunRow], datetime | None],
        since: datetime,
    ) -> None:
        """`read` returns a page of those to which it happened at a time or later, newest first."""
        self._read = read
        self._moment_of = moment_of
        self._newest = since
        self._given: dict[tuple[UUID, datetime], None] = {}

    async def next(self) -> Sequence[FlowRunRow]:
        """The jobs to which it has happened since the last call."""
        after = self._newest - OVERLAP if self._given else self._newest
        found: dict[tuple[UUID, datetime], FlowRunRow] = {}
        offset = 0
        while True:
            # Rows that are added meanwhile push others down: some are read twice, none is missed.
            page = await self._read(after, offset)
            for row in page:
                moment = self._moment_of(row)
                if moment is not None:
                    found[row.id, moment] = row
            if len(page) < MAX_LIMIT:
                break
            offset += len(page)
        fresh = [row for key, row in found.items() if key not in self._given]
        newest = max((moment for _, moment in found), default=self._newest)
        # A worker whose clock is ahead must not hide what happens on others.
        self._newest = max(self._newest, min(newest, datetime.now(UTC)))
        self._given = dict.fromkeys(found)
        return fresh


def _dumped(flow_runs: FlowRunFilter) -> dict[str, Any]:
    return flow_runs.model_dump(mode="json", exclude_unset=True)
