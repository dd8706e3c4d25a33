"""Jobs as Prefect keeps them: read and changed on behalf of every caller.

What is read for one caller is shared with all others, so nothing here asks who the caller is;
`api.jobs.visible_jobs` decides what a caller may see.
"""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from api.prefect.counting import count_by_state
from api.prefect.creation import Creation
from api.prefect.filters import flow_run_filter
from api.prefect.groups import GroupCache, of_this_flow
from api.prefect.job_cache import JobCache
from api.prefect.pending_reasons import PendingReasons
from api.prefect.retries import translating_errors, translating_not_found_errors
from api.prefect.rows import FLOW_RUN_ROWS, FlowRunRow
from api.prefect.translation import job_from
from api.web.cursors import JobPosition
from api.web.problems import NotFound
from api.web.queries import MAX_LIMIT, JobQuery
from api.web.schemas import Job, JobPage
from api.web.statuses import OPEN_STATUSES
from flows.contract.spec import Label


class FlowRuns:
    """Every method may raise `PrefectUnavailable`; those that name a job, `NotFound`."""

    def __init__(self, client: PrefectClient, timeout_seconds: float, prefect_ui_url: str) -> None:
        """`timeout_seconds` bounds each method."""
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._prefect_ui_url = prefect_ui_url
        self._pending_reasons = PendingReasons(client)
        self._cache = JobCache(self._read_jobs, MAX_LIMIT)
        self._creation = Creation(client, self._read_again, timeout_seconds)
        self.groups = GroupCache(client)

    async def get(self, job_id: UUID) -> Job | None:
        """The job as it was at most `api.prefect.job_cache.FRESH_SECONDS` ago; none if it does not exist."""
        return await self._cache.get(job_id)

    async def many(self, job_ids: Collection[UUID]) -> Mapping[UUID, Job]:
        """Those of the jobs that exist, read now."""
        ids = list(job_ids)
        jobs: dict[UUID, Job] = {}
        for start in range(0, len(ids), MAX_LIMIT):
            jobs |= await self._read_jobs(frozenset(ids[start : start + MAX_LIMIT]))
        return jobs

    async def page(self, query: JobQuery, groups: Mapping[UUID, str], after: JobPosition | None) -> JobPage:
        """A page of the jobs of these groups, newest first."""
        asked = min(query.limit + 1, MAX_LIMIT)  # one more shows whether another page follows
        async with self.reading():
            read_at = time.monotonic()
            flow_runs = await self._read(flow_run_filter(query, groups.keys(), after), asked)
            page = flow_runs[: query.limit]
            jobs = await self._jobs_from(page, groups)
        self._cache.learn(jobs, read_at)
        if len(flow_runs) < asked:
            return JobPage(items=[*jobs], next_cursor=None)
        # Flow runs of a deployment have a time at which they were to start.
        times = [(cast(datetime, run.expected_start_time), run.id) for run in page]
        end = JobPosition.at_end_of(times, after, query.fingerprint())
        return JobPage(items=[*jobs], next_cursor=end.encode())

    async def count(self, deployment_ids: Collection[UUID]) -> Mapping[StateType, int]:
        """How many jobs of these groups are in each type of state, exactly."""
        counts: Counter[StateType] = Counter(dict.fromkeys(StateType, 0))
        async with self.reading():
            flow_runs = flow_run_filter(JobQuery(), deployment_ids, None)
            for row in await count_by_state(self._client, "/flow_runs/history", flow_runs):
                if row.state_type is not None:
                    counts[row.state_type] += row.count_runs
        return counts

    async def count_open(self, group: str) -> int:
        """How many jobs of the group have not ended. Unbounded: the caller bounds a whole submission."""
        deployment_ids = [each for each, name in (await self.groups.names()).items() if name == group]
        flow_runs = flow_run_filter(JobQuery(status=OPEN_STATUSES), deployment_ids, None)
        body = {"flow_runs": flow_runs.model_dump(mode="json", exclude_unset=True)}
        response = await self._client.request("POST", "/flow_runs/count", json=body)
        return int(response.content)

    async def row(self, job_id: UUID) -> FlowRunRow:
        """What Prefect knows of the job, its parameters and labels included."""
        async with self.reading():
            found = await self._read(FlowRunFilter(id=FlowRunFilterId(any_=[job_id])), 1)
        if not found:
            raise no_job(job_id)
        return found[0]

    async def whole(self, job_id: UUID) -> FlowRun:
        """The flow run with all its columns."""
        async with self.reading():
            with translating_not_found_errors(no_job(job_id)):
                return await self._client.read_flow_run(job_id)

    async def made_with(self, idempotency_key: str) -> FlowRunRow | None:
        """The flow run that was created with this key."""
        key = FlowRunFilterIdempotencyKey(any_=[idempotency_key])
        # Prefect's index of keys begins with the flow: without it, PostgreSQL before 18 reads all flow runs.
        flow = of_this_flow().model_dump(mode="json", exclude_unset=True)
        async with self.reading():
            found = await self._read(FlowRunFilter(idempotency_key=key), 1, flows=flow)
        return found[0] if found else None

    async def create(self, deployment_id: UUID, body: Mapping[str, object]) -> FlowRunRow:
        """A new scheduled flow run. Unbounded, and raises `httpx.HTTPStatusError`: the caller repeats it."""
        return await self._creation.create(deployment_id, body)

    async def cancel(self, job_id: UUID) -> None:
        """Asks Prefect to cancel. A job that has not started is then cancelled at once."""
        async with self.reading():
            with translating_not_found_errors(no_job(job_id)):
                await self._client.set_flow_run_state(job_id, Cancelling())
        self._cache.forget(job_id)

    async def label(self, job_id: UUID, labels: Mapping[Label, str]) -> None:
        async with self.reading():
            await self._client.update_flow_run_labels(
                job_id, {label.value: text for label, text in labels.items()}
            )
        self._cache.forget(job_id)

    async def delete_artifacts(self, job_id: UUID) -> None:
        """Prefect keeps those of a flow run that is deleted."""
        filters = {"artifacts": {"flow_run_id": {"any_": [str(job_id)]}}, "limit": MAX_LIMIT}
        async with self.reading():
            found = await self._client.request("POST", "/artifacts/filter", json=filters)
            for artifact in found.json():
                with suppress(ObjectNotFound):  # somebody else removes the job, too
                    await self._client.delete_artifact(UUID(artifact["id"]))

    async def delete(self, job_id: UUID) -> None:
        async with self.reading():
            with translating_not_found_errors(no_job(job_id)):
                await self._client.delete_flow_run(job_id)
        self._cache.forget(job_id)

    def reading(self) -> AbstractAsyncContextManager[None]:
        """Bounds several reads together, and translates the errors of Prefect."""
        return translating_errors(self._timeout_seconds)

    def job_from(self, flow_run: FlowRunRow, group: str) -> Job:
        return job_from(flow_run, group, self._prefect_ui_url)

    async def _read(self, flow_runs: FlowRunFilter, limit: int, **filters: object) -> Sequence[FlowRunRow]:
        """Newest first. `filters` are those by what a flow run belongs to."""
        body: dict[str, Any] = {
            "flow_runs": flow_runs.model_dump(mode="json", exclude_unset=True),
            "sort": FlowRunSort.EXPECTED_START_TIME_DESC,
            "limit": limit,
            **filters,
        }
        response = await self._client.request("POST", "/flow_runs/filter", json=body)
        return FLOW_RUN_ROWS.validate_json(response.content)

    async def _read_again(self, job_ids: Sequence[UUID]) -> Sequence[FlowRunRow]:
        found = FlowRunFilter(id=FlowRunFilterId(any_=list(job_ids)))
        return await self._read(found, MAX_LIMIT) if job_ids else ()

    async def _read_jobs(self, job_ids: frozenset[UUID]) -> Mapping[UUID, Job]:
        async with self.reading():
            flow_runs = await self._read(FlowRunFilter(id=FlowRunFilterId(any_=list(job_ids))), MAX_LIMIT)
            deployment_ids = {run.deployment_id for run in flow_runs if run.deployment_id is not None}
            names = {each: await self.groups.name_of(each) for each in deployment_ids}
            groups = {each: name for each, name in names.items() if name is not None}
            known = [run for run in flow_runs if run.deployment_id in groups]
            return {job.id: job for job in await self._jobs_from(known, groups)}

    async def _jobs_from(self, flow_runs: Sequence[FlowRunRow], groups: Mapping[UUID, str]) -> Sequence[Job]:
        reasons = await self._pending_reasons.of(flow_runs, groups)
        deployments = [(run, cast(UUID, run.deployment_id)) for run in flow_runs]
        return [
            job_from(run, groups[each], self._prefect_ui_url, reasons.get(each)) for run, each in deployments
        ]


def no_job(job_id: UUID) -> NotFound:
    return NotFound(f"There is no job {job_id}.", "GET /jobs lists the jobs.")
