"""The rule jobs of a job: one, a page, or all of them."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import TaskRunSort

from api.prefect.filters import task_run_filter
from api.prefect.retries import translating_errors, translating_not_found_errors
from api.prefect.rows import RULE_JOB_ROWS, RuleJobRow
from api.prefect.task_pages import Mark, next_task_runs
from api.prefect.translation import rule_job_from
from api.web.cursors import RuleJobPosition
from api.web.problems import NotFound
from api.web.queries import MAX_LIMIT, RuleJobQuery
from api.web.schemas import RuleJob, RuleJobPage


class RuleJobReads:
    """Every method may raise `PrefectUnavailable`. None checks that the job exists, or who asks."""

    def __init__(self, client: PrefectClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def page(self, job_id: UUID, query: RuleJobQuery, after: RuleJobPosition | None) -> RuleJobPage:
        """Those that match, in an order that never changes."""
        task_runs = task_run_filter(job_id, query)

        async def read(row: int, limit: int) -> Sequence[TaskRun]:
            return await self._client.read_task_runs(
                task_run_filter=task_runs, sort=TaskRunSort.ID_DESC, offset=row, limit=limit
            )

        def is_wanted(task_run: TaskRun) -> bool:
            return query.matches(rule_job_from(task_run))

        mark = Mark(after.below, after.row) if after else None
        async with translating_errors(self._timeout_seconds):
            page, end = await next_task_runs(read, mark, query.limit, is_wanted)
        listing = query.fingerprint(job_id)
        return RuleJobPage(
            items=[rule_job_from(task_run) for task_run in page],
            next_cursor=RuleJobPosition(listing=listing, below=end.id, row=end.row).encode() if end else None,
        )

    async def one(self, job_id: UUID, task_id: UUID) -> RuleJob:
        """Raises `NotFound` unless it belongs to this job."""
        async with translating_errors(self._timeout_seconds):
            with translating_not_found_errors(_no_task(job_id, task_id)):
                task_run = await self._client.read_task_run(task_id)
        if task_run.flow_run_id != job_id:
            raise _no_task(job_id, task_id)
        return rule_job_from(task_run)

    async def rows(self, job_id: UUID, most: int | None = None) -> Sequence[RuleJobRow]:
        """All of them, or one more than `most`. One request for each 200."""
        rows: list[RuleJobRow] = []
        async with aclosing(self._rows(job_id)) as found:
            async for row in found:
                rows.append(row)
                if most is not None and len(rows) > most:
                    break
        return rows

    async def _rows(self, job_id: UUID) -> AsyncGenerator[RuleJobRow, None]:
        """Page by page, each once.

        Rule jobs that are recorded meanwhile push rows down, never up, so none is missed (`ID_DESC`
        is the one total order that Prefect offers).
        """
        seen: set[UUID] = set()
        offset = 0
        while True:
            body = {
                "task_runs": {"flow_run_id": {"any_": [str(job_id)]}},
                "sort": "ID_DESC",
                "limit": MAX_LIMIT,
                "offset": offset,
            }
            async with translating_errors(self._timeout_seconds):
                response = await self._client.request("POST", "/task_runs/filter", json=body)
            page = RULE_JOB_ROWS.validate_json(response.content)
            for row in page:
                if row.id not in seen:
                    seen.add(row.id)
                    yield row
            if len(page) < MAX_LIMIT:
                return
            offset += len(page)


def _no_task(job_id: UUID, task_id: UUID) -> NotFound:
    return NotFound(
        f"The job {job_id} has no rule job {task_id}.", f"GET /jobs/{job_id}/tasks lists its rule jobs."
    )
