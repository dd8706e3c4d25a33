"""Reads what has changed about a job in Prefect: its rule jobs and its log lines.

Prefect can't filter rows by when they changed. But at most as many rule jobs run as the job has cores,
and those that ended last come first when sorted by their end. So following a job of ten thousand rule
jobs costs two small reads each time. Only the first read, and the one after the job has ended, read
everything.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, Log, StateType, TaskRun
from prefect.client.schemas.sorting import LogSort, TaskRunSort

from api.prefect.filters import log_filter
from api.prefect.log_pages import LogKey, next_logs
from api.prefect.retries import translating_errors
from api.web.queries import MAX_LIMIT

MOST_LINES = 10_000
"""How many lines of a long log are read, the newest."""

_FIRST_LOOK = 20
_RUNNING = (StateType.RUNNING,)
_IS_ACTIVE = {"type": {"any_": [StateType.RUNNING.value, StateType.CANCELLING.value]}}


class Changes:
    """Every method may raise `PrefectUnavailable`."""

    def __init__(self, client: PrefectClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def all_rule_jobs(self, job_id: UUID) -> list[TaskRun]:
        """All but the pending ones."""
        kinds = (*_RUNNING, *TERMINAL_STATES)
        return [run async for run in self._task_runs(job_id, kinds, TaskRunSort.ID_DESC, MAX_LIMIT)]

    async def new_rule_jobs(self, job_id: UUID, is_known: Callable[[TaskRun], bool]) -> list[TaskRun]:
        """Those that run or have ended, without the known ones."""
        running = self._task_runs(job_id, _RUNNING, TaskRunSort.ID_DESC, MAX_LIMIT)
        found = [task_run async for task_run in running if not is_known(task_run)]
        ended = self._task_runs(job_id, tuple(TERMINAL_STATES), TaskRunSort.END_TIME_DESC, _FIRST_LOOK)
        async for task_run in ended:
            if is_known(task_run):
                break
            found.append(task_run)
        return found

    async def all_lines(self, job_id: UUID) -> list[Log]:
        """At least the newest `MOST_LINES`, oldest first."""
        oldest = await self._lines(job_id, None, LogSort.TIMESTAMP_DESC, MOST_LINES - 1, limit=1)
        return await self.lines_since(job_id, oldest[0].timestamp if oldest else None)

    async def lines_since(self, job_id: UUID, since: datetime | None) -> list[Log]:
        """Lines written since then, oldest first."""

        async def read(start: datetime | None, offset: int, limit: int) -> Sequence[Log]:
            return await self._lines(job_id, start, LogSort.TIMESTAMP_ASC, offset, limit)

        lines: list[Log] = []
        after = LogKey.first_of(since) if since else None
        while True:
            page, after = await next_logs(read, after, MAX_LIMIT)
            lines += page
            if after is None:
                return lines

    async def active_jobs(self) -> set[UUID]:
        """Jobs that run or are being cancelled."""
        return await self._job_ids({"state": _IS_ACTIVE})

    async def jobs_since(self, since: datetime) -> set[UUID]:
        """Jobs that were submitted or have ended since then, and those that are active.

        Prefect's events would not do: the server stores them in batches, so the newest are not in its
        table yet, and a new subscriber does not get them.
        """
        after = {"after_": since.isoformat()}
        return await self._job_ids(
            {"operator": "or_", "expected_start_time": after, "end_time": after, "state": _IS_ACTIVE}
        )

    async def _job_ids(self, flow_runs: dict[str, Any]) -> set[UUID]:
        found: set[UUID] = set()
        while True:
            body = {"flow_runs": flow_runs, "sort": "ID_DESC", "limit": MAX_LIMIT, "offset": len(found)}
            async with translating_errors(self._timeout_seconds):
                response = await self._client.request("POST", "/flow_runs/filter", json=body)
            page = [UUID(flow_run["id"]) for flow_run in response.json()]
            found.update(page)
            if len(page) < MAX_LIMIT:
                return found

    async def _lines(
        self, job_id: UUID, start: datetime | None, sort: LogSort, offset: int, limit: int
    ) -> Sequence[Log]:
        async with translating_errors(self._timeout_seconds):
            return await self._client.read_logs(
                log_filter(job_id, None, start), sort=sort, offset=offset, limit=limit
            )

    async def _task_runs(
        self, job_id: UUID, kinds: Sequence[StateType], sort: TaskRunSort, first: int
    ) -> AsyncIterator[TaskRun]:
        """Page by page, as far as the caller iterates; the first page has `first` rows."""
        task_runs = TaskRunFilter(
            flow_run_id=TaskRunFilterFlowRunId(any_=[job_id]),
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=list(kinds))),
        )
        offset, limit = 0, first
        while True:
            async with translating_errors(self._timeout_seconds):
                page = await self._client.read_task_runs(
                    task_run_filter=task_runs, sort=sort, offset=offset, limit=limit
                )
            for task_run in page:
                yield task_run
            if len(page) < limit:
                return
            offset, limit = offset + len(page), MAX_LIMIT
