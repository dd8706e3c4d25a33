"""Compares the states in Prefect with the tasks in ECS, and ends stuck jobs with a reason.

Prefect's worker learns that a task has stopped only while it runs itself, while its queue works, and if
the exit code is not zero. The reconciler finds all other cases; `deployments.verdicts` decides what to do.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed
from pydantic import Field
from pythonjsonlogger.json import JsonFormatter

from deployments.ecs import ECS, ClusterSettings
from deployments.ecs_tasks import EcsTasks
from deployments.stray_rule_jobs import StrayRuleJobs
from deployments.verdicts import Ending, GracePeriods, Run, Task, Verdict, judge
from flows.contract.executors import ExecutorSettings
from flows.contract.spec import ErrorKind, Label
from flows.worker.close_task_runs import close_task_runs
from flows.worker.silent_runs import SILENCE_SECONDS, SilentRuns

_log = logging.getLogger(__name__)

LOOKED = "Looked at all jobs."
"""Logged after each pass. An alarm of the deployment fires when it is missing."""

_ACTIVE = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_PAGE = 200
_EXPLAINED_FOR = timedelta(minutes=30)
_ACTS_AT_ONCE = 8
_MOST_ACTS = 500
"""In one pass; the next one handles the others."""

_CALM_SECONDS = 1.0
"""The least pause between two passes, however many jobs are cancelled."""

_LISTEN_AGAIN_SECONDS = 10.0
_UNREACHABLE = (httpx.HTTPError, BotoCoreError, ClientError)


class ReconcilerSettings(ClusterSettings):
    """How often the reconciler runs, and its grace periods."""

    reconcile_seconds: float = Field(
        default=60, gt=0, le=3600, description="Seconds between two passes over all jobs."
    )
    settle_seconds: float = Field(
        default=30, ge=0, le=3600, description="Grace period for a change to reach Prefect."
    )
    lost_seconds: float = Field(
        default=120,
        ge=0,
        le=86_400,
        description="Grace period for a job without a task whose worker is gone.",
    )
    silent_seconds: float = Field(
        default=900,
        ge=0,
        le=86_400,
        description="Grace period for a worker to start the task of a job, and for the task to begin.",
    )
    cancel_seconds: float = Field(
        default=120, ge=0, le=3600, description="Grace period for a running job that is cancelled to end."
    )

    @property
    def grace(self) -> GracePeriods:
        seconds = (self.settle_seconds, self.lost_seconds, self.silent_seconds, self.cancel_seconds)
        return GracePeriods(*(timedelta(seconds=each) for each in seconds))


@dataclass(frozen=True, slots=True)
class Case:
    """A job, its task, and what to do. Either may be missing."""

    run: Run | None
    task: Task | None
    verdict: Verdict


class Reconciler:
    """Checks all jobs of the work pool together. Several reconcilers may run at the same time."""

    def __init__(self, client: PrefectClient, tasks: EcsTasks, grace: GracePeriods) -> None:
        self._client = client
        self._tasks = tasks
        self._grace = grace

    async def reconcile(self) -> Sequence[Case]:
        """Make one pass. Returns the cases that it acted on.

        Raises httpx's and botocore's errors if Prefect or ECS can't be reached.
        """
        # Taken before the reading: a later time would make what has just ended look long gone.
        now = datetime.now(UTC)
        # Runs first: a task that is missing after its run was read does not exist.
        flow_runs = await self._flow_runs_here()
        arns = [arn for flow_run in flow_runs if (arn := _task_arn(flow_run)) and self._tasks.has(arn)]
        tasks = await asyncio.to_thread(self._tasks.read, arns)
        online = await self._workers_online()
        runs = [_run_from(flow_run, online) for flow_run in flow_runs]
        strays = {task.flow_run_id for task in tasks if task.lives} - {run.id for run in runs}
        runs += [_run_from(run, online) async for run in self._read_by_id(id for id in strays if id)]
        cases = list(islice(_cases(runs, tasks, self._grace, now), _MOST_ACTS))
        limit = asyncio.Semaphore(_ACTS_AT_ONCE)
        await asyncio.gather(*(self._act(case, limit) for case in cases))
        return cases

    async def _act(self, case: Case, limit: asyncio.Semaphore) -> None:
        """Act on a case, unless the job has changed meanwhile. The next pass repeats what fails."""
        verdict, run, task = case.verdict, case.run, case.task
        fields = {
            "job_id": str(run.id if run else task.flow_run_id if task else None),
            "state": run.state.value if run else None,
            "task": task.arn if task else None,
            "ending": verdict.ending,
            "stops_task": verdict.stops_task,
        }
        async with limit:
            try:
                if run is not None and not await self._is_still(run):
                    return
                # The state first: Prefect's worker takes a stopped task for the crash of its job.
                if verdict.ending is not None and run is not None:
                    await self._end(run, verdict, verdict.ending)
                if verdict.stops_task and task is not None:
                    await asyncio.to_thread(self._tasks.stop, task.arn, verdict.message)
            except (*_UNREACHABLE, ObjectNotFound) as error:
                _log.error("%s Prefect or ECS rejected the change: %s", verdict.message, error, extra=fields)
            except Exception:  # noqa: BLE001 - a fault with one job must not stop the others
                _log.exception("%s The change failed.", verdict.message, extra=fields)
            else:
                _log.warning(verdict.message, extra=fields)

    async def _is_still(self, run: Run) -> bool:
        """Whether the job is still as it was judged. Prefect would even cancel a job that has ended."""
        state = (await self._client.read_flow_run(run.id)).state
        return state is not None and (state.type, state.timestamp) == (run.state, run.since)

    async def _end(self, run: Run, verdict: Verdict, ending: Ending) -> None:
        """Labels first, so that the reason is there as soon as the state is."""
        if ending is Ending.CRASHED:
            labels: dict[str, bool | int | float | str] = {
                Label.ERROR_KIND.value: ErrorKind.SYSTEM.value,
                Label.ERROR_MESSAGE.value: verdict.message,
                Label.ERROR_RESOLUTION.value: verdict.resolution,
            }
            await self._client.update_flow_run_labels(run.id, labels)
        if run.has_started:
            await close_task_runs(self._client, run.id, is_cancelled=ending is Ending.CANCELLED)
        if run.state in TERMINAL_STATES:
            return
        state: State[None] = (
            Crashed(message=verdict.message)
            if ending is Ending.CRASHED
            else Cancelled(message=verdict.message)
        )
        await self._client.set_flow_run_state(run.id, state)

    async def _read_flow_runs(self) -> AsyncIterator[FlowRun]:
        """Flow runs that are active, and those that crashed recently without a reason."""
        crashed_since = FlowRunFilterEndTime.model_validate({"after_": datetime.now(UTC) - _EXPLAINED_FOR})
        for flow_run_filter in (
            FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_ACTIVE))),
            FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED])),
                end_time=crashed_since,
            ),
        ):
            async for flow_run in self._pages(flow_run_filter):
                if flow_run.state_type in _ACTIVE or Label.ERROR_KIND not in flow_run.labels:
                    yield flow_run

    async def _flow_runs_here(self) -> Sequence[FlowRun]:
        """Each once, as read last: runs that start meanwhile push others onto the next page."""
        found = {run.id: run async for run in self._read_flow_runs() if self._is_here(run)}
        return list(found.values())

    def _is_here(self, flow_run: FlowRun) -> bool:
        """Whether its task is in this cluster. Tasks of an earlier cluster are not visible."""
        return not self._tasks.is_elsewhere(_task_arn(flow_run) or "")

    async def _pages(self, flow_run_filter: FlowRunFilter) -> AsyncIterator[FlowRun]:
        offset = 0
        while True:
            page = await self._client.read_flow_runs(
                flow_run_filter=flow_run_filter,
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[ECS])),
                sort=FlowRunSort.ID_DESC,
                limit=_PAGE,
                offset=offset,
            )
            for flow_run in page:
                yield flow_run
            if len(page) < _PAGE:
                return
            offset += _PAGE

    async def _read_by_id(self, ids: Iterable[UUID]) -> AsyncIterator[FlowRun]:
        wanted = list(ids)
        for start in range(0, len(wanted), _PAGE):
            some = FlowRunFilterId(any_=wanted[start : start + _PAGE])
            for flow_run in await self._client.read_flow_runs(flow_run_filter=FlowRunFilter(id=some)):
                yield flow_run

    async def _workers_online(self) -> frozenset[str]:
        workers = await self._client.read_workers_for_work_pool(ECS)
        return frozenset(worker.name for worker in workers if worker.status == "ONLINE")


def _cases(runs: Iterable[Run], tasks: Iterable[Task], grace: GracePeriods, now: datetime) -> Iterable[Case]:
    """Each run with its newest task; then older tasks that still run, and tasks without a run."""
    of_run: dict[UUID, list[Task]] = {}
    for task in sorted(tasks, key=lambda task: task.created_at):
        if task.flow_run_id is not None:
            of_run.setdefault(task.flow_run_id, []).append(task)
    for run in runs:
        own = of_run.pop(run.id, [])
        newest = own[-1] if own else None
        if verdict := judge(run, newest, grace, now):
            yield Case(run, newest, verdict)
        for task in own[:-1]:
            if task.lives and not task.is_stopping:
                yield Case(run, task, Verdict("A newer task runs its job.", stops_task=True))
    for without_run in of_run.values():
        for task in without_run:
            if verdict := judge(None, task, grace, now):
                yield Case(None, task, verdict)


def _run_from(flow_run: FlowRun, workers_online: frozenset[str]) -> Run:
    state = flow_run.state
    return Run(
        id=flow_run.id,
        state=state.type if state else StateType.SCHEDULED,
        since=state.timestamp if state else datetime.now(UTC),
        has_started=flow_run.start_time is not None,
        worker_is_online=flow_run.labels.get(Label.WORKER) in workers_online,
        message=(state.message if state else None) or "",
        is_explained=Label.ERROR_KIND in flow_run.labels,
    )


def _task_arn(flow_run: FlowRun) -> str | None:
    """From `cluster::task-arn`, which Prefect's worker stores."""
    return (flow_run.infrastructure_pid or "").partition("::")[2] or None


async def run_reconciler(settings: ReconcilerSettings, *, once: bool) -> None:
    """Make pass after pass, and one as soon as a job is cancelled. Failures are retried in the next pass."""
    tasks, rule_jobs = EcsTasks(settings), StrayRuleJobs(ExecutorSettings().executors_by_group.values())
    async with get_client() as client:
        reconciler = Reconciler(client, tasks, settings.grace)
        silent_runs = SilentRuns(SILENCE_SECONDS)
        if once:
            await reconciler.reconcile()
            return
        is_due = asyncio.Event()
        listening = asyncio.create_task(_listen_for_cancels(client, is_due))
        try:
            while True:
                await _make_a_pass(reconciler)
                await _settle_silent_runs(silent_runs, client)
                await _end_stray_rule_jobs(rule_jobs, client)
                is_due.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(settings.reconcile_seconds):
                        await is_due.wait()
                await asyncio.sleep(min(_CALM_SECONDS, settings.reconcile_seconds))
        finally:
            listening.cancel()


async def _make_a_pass(reconciler: Reconciler) -> None:
    try:
        cases = await reconciler.reconcile()
        _log.info(LOOKED, extra={"cases": len(cases)})
    except _UNREACHABLE as error:
        _log.error("Prefect or ECS can't be reached: %s", error)
    except Exception:  # noqa: BLE001 - this process must not end: the worker shares its task
        _log.exception("A pass over all jobs has failed.")


async def _settle_silent_runs(silent_runs: SilentRuns, client: PrefectClient) -> None:
    """Attached runs, which this work pool does not know: there is no worker of ours to do it."""
    try:
        await silent_runs.settle(client)
    except Exception as error:  # noqa: BLE001 - as above
        _log.error("Attached runs can't be read: %r", error)


async def _end_stray_rule_jobs(rule_jobs: StrayRuleJobs, client: PrefectClient) -> None:
    try:
        await rule_jobs.end(client)
    except Exception as error:  # noqa: BLE001 - as above
        _log.error("Rule jobs on AWS Batch can't be looked after: %r", error)


async def _listen_for_cancels(client: PrefectClient, is_due: asyncio.Event) -> None:
    """Start a pass for each cancelled job, until cancelled itself. Without events, the next pass finds it."""
    while True:
        try:
            pool = await client.read_work_pool(ECS)
            cancels = EventFilter(
                event=EventNameFilter(name=["prefect.flow-run.Cancelling"]),
                any_resource=EventAnyResourceFilter(id=[f"prefect.work-pool.{pool.id}"]),
            )
            async with get_events_subscriber(filter=cancels) as subscriber:
                async for _ in subscriber:
                    is_due.set()
        except Exception as error:  # noqa: BLE001 - Prefect raises a plain one when authentication fails
            _log.warning("The connection to Prefect's events failed: %r", error)
            await asyncio.sleep(_LISTEN_AGAIN_SECONDS)


def configure_logs() -> None:
    """Log one JSON object per line, for CloudWatch."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter(
        "{levelname}{name}{message}",
        style="{",
        timestamp="timestamp",
        rename_fields={"levelname": "level", "name": "logger"},
    )
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
