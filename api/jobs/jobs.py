"""Jobs, as Prefect knows them: all that a client asks of them goes through here."""

import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from copy import copy
from dataclasses import asdict
from datetime import datetime
from hashlib import sha256
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Self, cast
from uuid import UUID, uuid4

import anyio
import anyio.to_thread
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
)
from prefect.client.schemas.objects import FlowRun, Log, StateType, TaskRun
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort, LogSort, TaskRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Cancelling

from api.auth.callers import ANYONE, Caller
from api.insight.crates import History
from api.insight.graphs import GraphOf
from api.insight.pictures import MOST_BOXES, Drawing, drawing_of
from api.jobs.disposal import Disposal
from api.jobs.groups import Groups
from api.jobs.machines import job_variables
from api.jobs.workflows import check_workflow
from api.prefect.counting import count_by_state
from api.prefect.filters import flow_run_filter, log_filter, task_run_filter
from api.prefect.job_cache import LiveJobs
from api.prefect.log_pages import LogKey, next_logs
from api.prefect.pending_reasons import Waiting
from api.prefect.retries import patience
from api.prefect.rows import FLOW_RUN_ROWS, FlowRunRow, RuleJobRow
from api.prefect.rule_job_reads import Shared, rule_job_rows
from api.prefect.task_pages import Mark, next_task_runs
from api.prefect.translation import job_from, log_line_from, rule_job_from
from api.settings import Settings
from api.web.cursors import JobPosition, LogPosition, RuleJobPosition
from api.web.problems import (
    BodyTooLarge,
    IdempotencyKeyReused,
    InvalidRequest,
    JobAlreadyFinished,
    JobNotFinished,
    NotFound,
    NotResumable,
    TooManyOpenJobs,
)
from api.web.queries import MAX_LIMIT, JobQuery, PageQuery, RuleJobQuery
from api.web.schemas import Job, JobPage, LogPage, RuleJob, RuleJobPage
from api.web.statuses import FINAL_STATUSES, OPEN_STATUSES, JobStatus, job_status
from api.webhooks.messages import check_webhook
from flows.contract.spec import FLOW_NAME, EngineName, JobSpec, Label
from flows.contract.storage import Storage

# Half of the connections that Prefect's client opens, so that reads never queue behind a flood of
# submissions. More at once make Prefect no faster: it takes about 20 a second either way.
_SUBMISSIONS_AT_ONCE = 8

_STOPPING = (JobStatus.CANCELLING, JobStatus.CANCELLED)
_ENDED = (JobStatus.COMPLETED, JobStatus.FAILED)


class Jobs:
    """Submits, finds and cancels jobs, and looks into them: those that the caller may see.

    The jobs of other groups are as if they were not, whatever is asked. That is decided in
    `get`, which all that looks into one job begins with, and in `Groups`.

    Every method may raise `PrefectUnavailable`; those that name a job, `NotFound`.
    """

    def __init__(
        self, client: PrefectClient, settings: Settings, storage: Storage, prefect_ui_url: str
    ) -> None:
        self._client = client
        self._settings = settings
        self._storage = storage
        self._disposal = Disposal(storage, settings.home)
        self._prefect_ui_url = prefect_ui_url
        self._caller = ANYONE
        self._groups = Groups(self._read_groups)
        self._waiting = Waiting(client)
        self._live = LiveJobs(self._read_jobs, MAX_LIMIT)
        self._drawings: Shared[Drawing] = Shared(lambda drawing: drawing.is_final)
        self._submissions = anyio.CapacityLimiter(_SUBMISSIONS_AT_ONCE)

    def seen_by(self, caller: Caller) -> Self:
        """These jobs, as far as they are the caller's; what was read for others is shared."""
        view = copy(self)
        view._caller = caller
        return view

    async def submit(
        self, spec: JobSpec, key: str | None = None, labels: Mapping[Label, str] = MappingProxyType({})
    ) -> Job:
        """Makes one job of `spec`, or none; with a `key` that was used before, it gives that job.

        Raises `UnknownGroup`, `WorkflowRefused`, `MachineRefused`, `BodyTooLarge`, `TooManyOpenJobs`,
        `WebhookRefused`, `IdempotencyKeyReused` and `RefusedByPrefect`, and
        `flows.contract.storage.StorageError` when a bundle can't be looked for.
        """
        # Also without a key of the client's: Prefect's client sends a request again without knowing
        # what became of the first one.
        idempotency_key = str(uuid4()) if key is None else f"client:{self._caller.name}:{key}"
        try:
            machine = await self._check(spec)
        except InvalidRequest:
            # What the job was made of may be gone since; the job is not.
            made_before = await self._made_with(idempotency_key) if key is not None else None
            if made_before is None:
                raise
            flow_run = made_before
        else:
            flow_run = await self._make(
                spec.group,
                {
                    "parameters": spec.parameters(),
                    "name": spec.name,
                    "tags": spec.prefect_tags(),
                    "labels": _labels(spec) | {str(label): text for label, text in labels.items()},
                    "idempotency_key": idempotency_key,
                    "job_variables": machine or None,
                },
                spec,
            )
        if flow_run.labels.get(Label.SPEC_SHA256) != _fingerprint(spec):
            raise IdempotencyKeyReused(
                f"The Idempotency-Key '{key}' was used for the job {flow_run.id}, with another body.",
                "Send a new key with a new body, or the first body with this key.",
            )
        return job_from(flow_run, spec.group, self._prefect_ui_url)

    async def get(self, job_id: UUID) -> Job:
        """The job as it was at most `api.prefect.job_cache.FRESH_SECONDS` ago."""
        job = await self._live.get(job_id)
        if job is None or not self._caller.may_see(job.group):
            raise _no_job(job_id)
        return job

    async def many(self, job_ids: Collection[UUID]) -> Mapping[UUID, Job]:
        """Those of the jobs that there are, read now."""
        ids = list(job_ids)
        jobs: dict[UUID, Job] = {}
        for start in range(0, len(ids), MAX_LIMIT):
            jobs |= await self._read_jobs(frozenset(ids[start : start + MAX_LIMIT]))
        return jobs

    async def list(self, query: JobQuery) -> JobPage:
        """A page of jobs, newest first. Raises `UnknownGroup` and `BadCursor`."""
        listing = query.fingerprint()
        after = JobPosition.decode(query.cursor, listing)
        asked = min(query.limit + 1, MAX_LIMIT)  # one more tells whether another page follows
        async with self._reading():
            groups = await self._groups.names(self._caller)
            if query.group is not None:
                deployment_id = await self._groups.deployment_of(query.group, self._caller, "?group")
                groups = {deployment_id: query.group}
            if not groups:
                return JobPage(items=[], next_cursor=None)
            read_at = time.monotonic()
            flow_runs = await self._read_flow_runs(flow_run_filter(query, groups.keys(), after), asked)
            page = flow_runs[: query.limit]
            jobs = await self._jobs_from(page, groups)
        self._live.learn(jobs, read_at)
        if len(flow_runs) < asked:
            return JobPage(items=[*jobs], next_cursor=None)
        # Flow runs of a deployment have a time at which they were to start.
        times = [(cast(datetime, run.expected_start_time), run.id) for run in page]
        return JobPage(items=[*jobs], next_cursor=JobPosition.at_end_of(times, after, listing).encode())

    async def count(self) -> Mapping[StateType, int]:
        """How many jobs of the caller are in each type of state, exactly."""
        counts: Counter[StateType] = Counter(dict.fromkeys(StateType, 0))
        async with self._reading():
            flow_runs = flow_run_filter(JobQuery(), await self._groups.names(self._caller), None)
            for row in await count_by_state(self._client, "/flow_runs/history", flow_runs):
                if row.state_type is not None:
                    counts[row.state_type] += row.count_runs
        return counts

    async def submission(self, job_id: UUID) -> tuple[Mapping[str, Any], str | None]:
        """The parameters of a job, and what it was submitted to WES with, if it was."""
        await self.get(job_id)
        row = await self._row(job_id)
        kept = row.labels.get(Label.WES_REQUEST)
        return row.parameters, None if kept is None else str(kept)

    async def cancel(self, job_id: UUID) -> Job:
        """Asks a job to stop; asking once more changes nothing. Raises `JobAlreadyFinished`."""
        job = await self.get(job_id)
        if job.status not in (*_STOPPING, *_ENDED):
            async with self._reading():
                with _told_as(_no_job(job_id)):
                    # Prefect decides what follows: a job that has not started is cancelled at once.
                    await self._client.set_flow_run_state(job_id, Cancelling())
            self._live.forget(job_id)
            job = await self.get(job_id)
        if job.status in _ENDED:
            raise JobAlreadyFinished(
                f"The job {job_id} is {job.status} already.", "Nothing is left to do: nothing of it runs."
            )
        return job

    async def resume(self, job_id: UUID) -> Job:
        """A new job that goes on with this one in its directory; asking once more gives the same.

        So a directory has one line of jobs, and no two of them run at once. Raises `NotResumable`
        and `TooManyOpenJobs`.
        """
        job = await self.get(job_id)
        _check_resumable(job)
        async with self._reading():
            with _told_as(_no_job(job_id)):
                before = await self._client.read_flow_run(job_id)
        kept = (Label.SPEC_SHA256, Label.WEBHOOK_URL)
        labels = {label.value: before.labels[label] for label in kept if label in before.labels}
        flow_run = await self._make(
            job.group,
            {
                "parameters": before.parameters,
                "name": before.name,
                "tags": before.tags,
                "labels": {**labels, Label.RESUMES.value: _works_in(before)},
                "idempotency_key": _resume_key(job_id),
                "job_variables": before.job_variables,
            },
        )
        async with self._reading():
            await self._client.update_flow_run_labels(job_id, {Label.RESUMED_BY.value: str(flow_run.id)})
        self._live.forget(job_id)
        return job_from(flow_run, job.group, self._prefect_ui_url)

    async def delete(self, job_id: UUID) -> None:
        """Remove a job that has ended: its run, its files, and its bundle if no other job needs it.

        The run goes last, so that what fails half-way can be asked for again. Raises
        `JobNotFinished`, also while a job that resumes it has not, and `flows.contract.storage.StorageError`.
        """
        job = await self.get(job_id)
        if job.status in OPEN_STATUSES:
            raise JobNotFinished(f"The job {job_id} is {job.status}.", "Cancel it first.")
        await self._check_not_needed(job_id)
        async with self._reading():
            with _told_as(_no_job(job_id)):
                flow_run = await self._client.read_flow_run(job_id)
        await anyio.to_thread.run_sync(self._disposal.remove_job, job_id)
        bundle = _bundle_of(flow_run.parameters)
        if bundle is not None and flow_run.idempotency_key is not None:
            await anyio.to_thread.run_sync(self._disposal.end_use, bundle, flow_run.idempotency_key)
        async with self._reading():
            with _told_as(_no_job(job_id)):
                await self._client.delete_flow_run(job_id)
        self._live.forget(job_id)

    async def tasks(self, job_id: UUID, query: RuleJobQuery) -> RuleJobPage:
        """A page of the job's rule jobs. Raises `BadCursor`."""
        listing = query.fingerprint(job_id)
        position = RuleJobPosition.decode(query.cursor, listing)
        after = Mark(position.below, position.row) if position else None
        task_runs = task_run_filter(job_id, query)

        async def read(row: int, limit: int) -> Sequence[TaskRun]:
            return await self._client.read_task_runs(
                task_run_filter=task_runs, sort=TaskRunSort.ID_DESC, offset=row, limit=limit
            )

        def is_wanted(task_run: TaskRun) -> bool:
            return query.matches(rule_job_from(task_run))

        await self.get(job_id)
        async with self._reading():
            page, end = await next_task_runs(read, after, query.limit, is_wanted)
        return RuleJobPage(
            items=[rule_job_from(task_run) for task_run in page],
            next_cursor=RuleJobPosition(listing=listing, below=end.id, row=end.row).encode() if end else None,
        )

    async def task(self, job_id: UUID, task_id: UUID) -> RuleJob:
        await self.get(job_id)
        async with self._reading():
            with _told_as(_no_task(job_id, task_id)):
                task_run = await self._client.read_task_run(task_id)
        if task_run.flow_run_id != job_id:
            raise _no_task(job_id, task_id)
        return rule_job_from(task_run)

    async def history(self, job_id: UUID, most_rule_jobs: int) -> History:
        """All that Prefect keeps of a job that has ended. Raises `JobNotFinished`."""
        job = await self.get(job_id)
        if job.status not in FINAL_STATUSES:
            raise JobNotFinished(
                f"The job {job_id} is {job.status}; what came of it is told when it has ended.",
                "Ask again then: GET /jobs/{id}?wait=60 waits for it.",
            )
        flow_run = await self._row(job_id)
        rows = await self._rule_job_rows(job_id, most_rule_jobs)
        rule_jobs = tuple(rule_job_from(row) for row in rows) if len(rows) <= most_rule_jobs else None
        return History(job, flow_run.parameters, rule_jobs)

    async def drawing(self, job_id: UUID, kind: GraphOf) -> bytes:
        """What of the job waits for what, as an SVG, with states of a second ago. Raises `GraphTooLarge`."""
        job = await self.get(job_id)
        # A job that runs again after its end is another one here.
        key = (job_id, kind, job.status, job.started_at)
        drawing = await self._drawings.get(key, lambda: self._draw(job, kind))
        return drawing.svg

    async def logs(self, job_id: UUID, query: PageQuery, task_id: UUID | None = None) -> LogPage:
        """A page of the log of the job, or of one of its rule jobs. Raises `BadCursor`."""
        listing = query.fingerprint(job_id, task_id)
        position = LogPosition.decode(query.cursor, listing)
        after = LogKey(position.timestamp, position.created, position.id) if position else None

        async def read(start: datetime | None, offset: int, limit: int) -> Sequence[Log]:
            return await self._client.read_logs(
                log_filter(job_id, task_id, start), sort=LogSort.TIMESTAMP_ASC, offset=offset, limit=limit
            )

        if task_id is None:
            await self.get(job_id)
        else:
            await self.task(job_id, task_id)
        async with self._reading():
            page, end = await next_logs(read, after, query.limit)
        return LogPage(
            items=[log_line_from(log) for log in page],
            next_cursor=LogPosition(listing=listing, **asdict(end)).encode() if end else None,
        )

    async def _draw(self, job: Job, kind: GraphOf) -> Drawing:
        rows = await self._rule_job_rows(job.id, MOST_BOXES if kind is GraphOf.JOBS else None)
        return await anyio.to_thread.run_sync(drawing_of, job, kind, rows)

    async def _rule_job_rows(self, job_id: UUID, most: int | None) -> Sequence[RuleJobRow]:
        """All of them, or one more than `most`."""
        rows: list[RuleJobRow] = []
        async with aclosing(
            rule_job_rows(self._client, job_id, self._settings.read_patience_seconds)
        ) as found:
            async for row in found:
                rows.append(row)
                if most is not None and len(rows) > most:
                    break
        return rows

    async def _check_open_jobs(self, group: str, idempotency_key: str) -> None:
        """Raises `UnknownGroup`; and `TooManyOpenJobs`, unless a job of that key is there already.

        Submissions at the same time don't see each other: as many as there are at once may be let
        through above the limit.
        """
        deployment_id = await self._groups.deployment_of(group, self._caller)
        most = self._settings.max_open_jobs_per_group
        if most is None:
            return
        flow_runs = flow_run_filter(JobQuery(status=OPEN_STATUSES), [deployment_id], None)
        body = {"flow_runs": flow_runs.model_dump(mode="json", exclude_unset=True)}
        response = await self._client.request("POST", "/flow_runs/count", json=body)
        count = int(response.content)
        if count >= most and await self._made_with(idempotency_key) is None:
            raise TooManyOpenJobs(
                f"The group '{group}' has {count} open jobs, and may have {most}.",
                "Submit again when one of them has ended, or cancel one.",
            )

    async def _check_not_needed(self, job_id: UUID) -> None:
        """Raises `JobNotFinished` while a job that resumes this one may still look for what is left of it.

        It is found by its key, which it has from the start; the label that names it comes a moment later.
        """
        successor = await self._made_with(_resume_key(job_id))
        while successor is not None and (status := job_status(successor.state_type)) not in OPEN_STATUSES:
            # Who resumes one that never ran goes on with this one.
            successor = None if successor.run_count else await self._made_with(_resume_key(successor.id))
        if successor is not None:
            raise JobNotFinished(
                f"The job {successor.id}, which resumes the job {job_id}, is {status}.",
                "Wait until it has ended, or cancel it first.",
            )

    async def _check(self, spec: JobSpec) -> Mapping[str, object]:
        """The job variables of a job that may be made. Raises as `submit` does."""
        machine = job_variables(spec, self._settings.machines)
        await self._check_workflow(spec)
        check_webhook(
            spec.webhook,
            can_sign=self._settings.webhook_secret is not None,
            private_hosts=self._settings.webhook_allowed_private_hosts,
        )
        _check_size(spec)
        return machine

    async def _check_workflow(self, spec: JobSpec) -> None:
        await anyio.to_thread.run_sync(check_workflow, spec, self._settings, self._storage)

    async def _made_with(self, idempotency_key: str) -> FlowRunRow | None:
        """The flow run that was made with this key."""
        key = FlowRunFilterIdempotencyKey(any_=[idempotency_key])
        async with self._reading():
            found = await self._read_flow_runs(FlowRunFilter(idempotency_key=key), 1)
        return found[0] if found else None

    async def _make(self, group: str, body: Mapping[str, Any], spec: JobSpec | None = None) -> FlowRunRow:
        """A flow run of the group's deployment. Raises `UnknownGroup` and `TooManyOpenJobs`.

        With a `spec`, the workflow must still be there.
        """
        key: str = body["idempotency_key"]
        bundle = _bundle_of(body["parameters"])
        async with patience(self._settings.submit_patience_seconds), self._submissions:
            await self._check_open_jobs(group, key)
            if bundle is not None:
                await anyio.to_thread.run_sync(self._disposal.note_use, bundle, key)
                if spec is not None:  # the last job that needed the bundle may have been removed meanwhile
                    await self._check_workflow(spec)
            try:
                return await self._create_flow_run(group, body)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != HTTPStatus.NOT_FOUND:
                    raise
                self._groups.forget()  # the deployment was deleted, or made anew with another id
                return await self._create_flow_run(group, body)

    async def _create_flow_run(self, group: str, body: Mapping[str, object]) -> FlowRunRow:
        response = await self._client.request(
            "POST",
            "/deployments/{id}/create_flow_run",
            path_params={"id": await self._groups.deployment_of(group, self._caller)},
            json={name: value for name, value in body.items() if value is not None}
            | {"state": {"type": StateType.SCHEDULED}},
        )
        return FlowRunRow.model_validate_json(response.content)

    async def _row(self, job_id: UUID) -> FlowRunRow:
        """Of a job that was there a moment ago."""
        async with self._reading():
            found = await self._read_flow_runs(FlowRunFilter(id=FlowRunFilterId(any_=[job_id])), 1)
        if not found:
            raise _no_job(job_id)
        return found[0]

    async def _read_flow_runs(self, flow_runs: FlowRunFilter, limit: int) -> Sequence[FlowRunRow]:
        """Newest first."""
        body = {
            "flow_runs": flow_runs.model_dump(mode="json", exclude_unset=True),
            "sort": FlowRunSort.EXPECTED_START_TIME_DESC,
            "limit": limit,
        }
        response = await self._client.request("POST", "/flow_runs/filter", json=body)
        return FLOW_RUN_ROWS.validate_json(response.content)

    async def _read_jobs(self, job_ids: frozenset[UUID]) -> Mapping[UUID, Job]:
        async with self._reading():
            flow_runs = await self._read_flow_runs(
                FlowRunFilter(id=FlowRunFilterId(any_=list(job_ids))), MAX_LIMIT
            )
            deployment_ids = {run.deployment_id for run in flow_runs if run.deployment_id is not None}
            names = {each: await self._groups.name_of(each) for each in deployment_ids}
            groups = {each: name for each, name in names.items() if name is not None}
            known = [run for run in flow_runs if run.deployment_id in groups]
            return {job.id: job for job in await self._jobs_from(known, groups)}

    async def _jobs_from(self, flow_runs: Sequence[FlowRunRow], groups: Mapping[UUID, str]) -> Sequence[Job]:
        reasons = await self._waiting.reasons(flow_runs, groups)
        deployments = [(run, cast(UUID, run.deployment_id)) for run in flow_runs]
        return [
            job_from(run, groups[each], self._prefect_ui_url, reasons.get(each)) for run, each in deployments
        ]

    async def _read_groups(self) -> Mapping[UUID, str]:
        names: dict[UUID, str] = {}
        while True:
            deployments = await self._client.read_deployments(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW_NAME])),
                sort=DeploymentSort.NAME_ASC,
                limit=MAX_LIMIT,
                offset=len(names),
            )
            names |= {deployment.id: deployment.name for deployment in deployments}
            if len(deployments) < MAX_LIMIT:
                return names

    def _reading(self) -> AbstractAsyncContextManager[None]:
        return patience(self._settings.read_patience_seconds)


def _resume_key(job_id: UUID) -> str:
    """The idempotency key of the one job that resumes it."""
    return f"resume:{job_id}"


def _works_in(flow_run: FlowRun) -> str:
    """The job whose directory a successor goes on in: one that never ran has none of its own."""
    before = flow_run.labels.get(Label.RESUMES)
    return str(before) if before is not None and not flow_run.run_count else str(flow_run.id)


def _bundle_of(parameters: Mapping[str, Any]) -> str | None:
    workflow = parameters.get("workflow")
    return workflow.get("bundle") if isinstance(workflow, dict) else None


def _check_resumable(job: Job) -> None:
    """Raises `NotResumable`."""
    if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise NotResumable(
            f"The job {job.id} is {job.status}.",
            "Nothing is left to do." if job.status in _ENDED else "Wait until it has ended, or cancel it.",
        )
    if job.engine == EngineName.MOCK:
        raise NotResumable(
            f"The job {job.id} is a mock, which keeps nothing to go on with.", "Submit a new one."
        )


def _check_size(spec: JobSpec) -> None:
    """Raises `BodyTooLarge` where Prefect would refuse the parameters, measured as Prefect does it
    (`prefect._internal.schemas.validators.validate_parameter_size`).
    """
    largest = get_current_settings().server.api.max_parameter_size
    size = len(json.dumps(spec.parameters(), separators=(",", ":")))
    if 0 < largest < size:
        raise BodyTooLarge(
            f"The job spec takes {size:,} bytes where Prefect keeps at most {largest:,}.",
            "Put what is large into files of the workflow and name those in `config`.",
        )


def _labels(spec: JobSpec) -> dict[str, str]:
    labels = {Label.SPEC_SHA256.value: _fingerprint(spec)}
    return labels | ({Label.WEBHOOK_URL.value: str(spec.webhook.url)} if spec.webhook else {})


def _fingerprint(spec: JobSpec) -> str:
    return sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


@contextmanager
def _told_as(not_found: NotFound) -> Iterator[None]:
    """Raises `not_found` for what Prefect does not find inside."""
    try:
        yield
    except ObjectNotFound as error:
        raise not_found from error


def _no_job(job_id: UUID) -> NotFound:
    return NotFound(f"There is no job {job_id}.", "GET /jobs lists the jobs that there are.")


def _no_task(job_id: UUID, task_id: UUID) -> NotFound:
    return NotFound(
        f"The job {job_id} has no rule job {task_id}.", f"GET /jobs/{job_id}/tasks lists those that it has."
    )
