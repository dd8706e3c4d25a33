"""The warm worker: a Prefect worker type that forks flow processes instead of starting Python anew.

    prefect worker start --pool snakemake --type snakemake

A job lives as long as its flow process, and the worker sees to it that Prefect knows:

| what ends                        | who notices                   | the job becomes        |
|----------------------------------|-------------------------------|------------------------|
| the flow, with a final state     | –                             | what the flow says     |
| the flow process, without one    | this worker, at once          | Crashed, or Cancelled  |
| worker and flow process together | the next worker, at its start | Crashed, or Cancelled  |
| the worker alone                 | the next worker adopts        | what the flow says     |
| the worker before it forked      | the next worker, when Prefect counts the old one as offline | Crashed |
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.contract.environments import EnvironmentSettings
from flows.environments.making import Environments
from flows.environments.variables import visible_variables
from flows.environments.warm import WarmStart
from flows.termination import CANCEL_SIGNAL
from flows.worker.close_task_runs import close_task_runs
from flows.worker.housekeeping import keep_house
from flows.worker.lost_jobs import Found, Lost, Start, is_lost, judge, may_be_lost, sign_of
from flows.worker.warm_environments import WarmEnvironments, WarmSettings
from flows.worker.zygote_client import FlowProcess, ZygoteClient
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace

SHUTDOWN_SECONDS = 15.0

_CANCELLING = "prefect.flow-run.Cancelling"
_ENDED = [f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled")]
_FREES_OR_WANTS_A_SLOT = ["prefect.flow-run.Scheduled", *_ENDED]
_LISTEN_AGAIN_SECONDS = 2.0
_CLAIM_SECONDS = 10.0
_ACTIVE = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]

logger = logging.getLogger("prefect.workers.snakemake")


class WorkerSettings(BaseSettings):
    """What an operator can set of the worker."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    drain_seconds: float = Field(
        default=0,
        ge=0,
        le=604_800,
        description="How long a worker that is asked to stop lets its jobs go on; it takes no new ones.",
    )


class SnakemakeWorkerResult(BaseWorkerResult):
    """The flow process is gone and Prefect knows how the job ended."""


class SnakemakeWorker(BaseWorker[BaseJobConfiguration, BaseVariables, SnakemakeWorkerResult]):
    """Runs each job in a process forked from one that has everything imported."""

    type = "snakemake"
    job_configuration = BaseJobConfiguration
    job_configuration_variables = BaseVariables
    _display_name = "Snakemake"
    _description = (
        "Run Snakemake workflows as flow runs on this machine, each in a process forked from a warm one."
    )

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """Has nothing but what makes a difference to a forked process.

        Prefect checks this schema and the variables of each flow run that is created: with all of
        `BaseVariables`, that is half of what a submission costs the server.
        """
        env = {"title": "Environment Variables", "type": "object", "default": {}}
        return {
            "job_configuration": {"env": "{{ env }}"},
            "variables": {"type": "object", "properties": {"env": env}},
        }

    async def setup(self) -> None:
        self._workspace_settings = WorkspaceSettings()
        self._warm = WarmEnvironments(WarmSettings(), visible_variables())
        self._zygote = ZygoteClient(warm_starts=self._warm.descriptor)
        self._flow_processes: dict[UUID, FlowProcess] = {}
        self._cancelled_early: set[UUID] = set()
        self._adopted: set[UUID] = set()
        self._is_stopping = False
        self._poll = asyncio.Lock()
        self._poll_is_due = False
        self._claims: dict[UUID, asyncio.Event] = {}
        self._listener: asyncio.Task[None] | None = None
        self._warm.start()
        self._prepare_default_environment()
        self._housekeeping = asyncio.create_task(keep_house(self._workspace_settings.home.resolve()))
        await self._zygote.start()
        await super().setup()

    async def teardown(self, *exc_info: Any) -> None:
        self._is_stopping = True
        if self._listener is not None:
            self._listener.cancel()
        self._housekeeping.cancel()
        if len(exc_info) > 1 and isinstance(exc_info[1], Exception):
            logger.error("The worker ends by a fault; %d jobs go on without it.", len(self._flow_processes))
        else:
            await self._end_flow_processes()
        await super().teardown(*exc_info)
        self._zygote.close()
        self._warm.close()

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> SnakemakeWorkerResult:
        environment = {**os.environ, **configuration.env}
        process = await self._zygote.fork(
            flow_run.id,
            {name: value for name, value in environment.items() if value is not None},
        )
        self._flow_processes[flow_run.id] = process
        if task_status is not None:
            task_status.started(process.identifier)
        try:
            # In the table until Prefect knows how it ended: what is not in there looks lost.
            await self._settle(flow_run.id, _explanation(await process.wait()))
        finally:
            del self._flow_processes[flow_run.id]
        return SnakemakeWorkerResult(status_code=0, identifier=process.identifier)

    def _prepare_default_environment(self) -> None:
        """Have Snakemake ready for the first job, if the environment is made already."""
        environments = Environments(EnvironmentSettings(), self._workspace_settings.home)
        environment = environments.ready(environments.wanted(None))
        if environment is not None:
            self._warm.prepare(WarmStart(str(environment.python), str(environment.runtime)))

    async def sync_with_backend(self) -> None:
        """Also settle the jobs that nobody runs any more: at the start, and with every heartbeat.

        A Prefect that is away is waited for: Prefect's loop would give up after some minutes.
        """
        try:
            await super().sync_with_backend()
            if self._work_pool is None:
                return
            if self._listener is None:
                self._listener = asyncio.create_task(self._listen(self._work_pool.id))
            await self._settle_lost_jobs()
        except httpx.HTTPError as error:
            if not self._has_successfully_synced:
                raise
            logger.warning("The worker can't tell Prefect that it lives (%s); it tries again.", error)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        if self._poll_is_due or self._is_stopping:
            return []  # the one that waits will see the same
        self._poll_is_due = True
        async with self._poll:  # the polling loop and the listener both come here
            self._poll_is_due = False
            self._claims = {}
            try:
                taken = await super().get_and_submit_flow_runs()
            except httpx.HTTPError as error:
                logger.warning("Prefect gives out no jobs (%s); the worker asks again.", error)
                return []
            # Prefect gives out rows that nobody is changing, and a queue's limit counts what is Pending:
            # asked again before these are, it would give others in their place, over the limit.
            claims = [self._claims[run.id].wait() for run in taken if run.id in self._claims]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLAIM_SECONDS):
                    await asyncio.gather(*claims)
            return taken

    async def _submit_scheduled_flow_runs(
        self, flow_run_response: list[WorkerFlowRunResponse]
    ) -> list[FlowRun]:
        self._claims = {entry.flow_run.id: asyncio.Event() for entry in flow_run_response}
        return await super()._submit_scheduled_flow_runs(flow_run_response)

    async def _propose_pending_state(self, flow_run: FlowRun) -> bool:
        try:
            return await super()._propose_pending_state(flow_run)
        finally:
            if claim := self._claims.get(flow_run.id):
                claim.set()

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Tell nothing: a fork takes less time than telling of it costs the server."""

    async def _submit_run_and_capture_errors(
        self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[Any] | None = None
    ) -> Any:
        try:
            result = await super()._submit_run_and_capture_errors(flow_run, task_status)
        except Exception as error:
            logger.exception("Job %s: Prefect could not be told how its start went.", flow_run.id)
            result = error
        self._start_soon(self.get_and_submit_flow_runs)  # its slot is free
        return result

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        except Exception:  # it stays Scheduled and is given out again, or Pending and is settled as lost
            logger.exception("Job %s could not be started.", flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)
            self._release_limit_slot(flow_run.id)
            if claim := self._claims.get(flow_run.id):
                claim.set()
        if flow_run.id in self._cancelled_early:
            self._cancelled_early.remove(flow_run.id)
            await self._cancel_run(flow_run.id)

    async def _listen(self, work_pool_id: UUID) -> None:
        """Act on new jobs and on cancels at once; polling and heartbeats remain as the fallback."""
        events = EventFilter(
            event=EventNameFilter(name=[_CANCELLING, *_FREES_OR_WANTS_A_SLOT]),
            any_resource=EventAnyResourceFilter(id=[f"prefect.work-pool.{work_pool_id}"]),
        )
        while True:
            try:
                async with get_events_subscriber(filter=events) as subscriber:
                    await self._settle_lost_jobs()  # what was cancelled while nobody listened
                    async for event in subscriber:
                        await self._act_on(event)
            except Exception as error:  # noqa: BLE001 - Prefect and websockets raise many, some of them plain
                logger.warning("The worker does not hear Prefect's events (%s); it tries again.", error)
                await asyncio.sleep(_LISTEN_AGAIN_SECONDS)

    async def _act_on(self, event: Event) -> None:
        if event.event in _FREES_OR_WANTS_A_SLOT:
            self._start_soon(self.get_and_submit_flow_runs)
        else:
            flow_run_id = UUID(event.resource.id.removeprefix("prefect.flow-run."))
            self._start_soon(self._cancel_run, flow_run_id)

    def _start_soon(self, call: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Do it beside the rest. What fails is told, and ends neither the worker nor its other jobs."""

        async def do() -> None:
            try:
                await call(*arguments)
            except Exception:
                logger.exception("The worker goes on after a fault.")

        if self._runs_task_group is not None and self.is_setup:
            self._runs_task_group.start_soon(do)

    async def _cancel_run(self, flow_run_id: UUID) -> None:
        process = self._flow_processes.get(flow_run_id)
        if process is not None:
            await process.cancel()
            return
        if flow_run_id in self._submitting_flow_run_ids:
            self._cancelled_early.add(flow_run_id)  # its flow process is about to be forked
            return
        match self._workspace(flow_run_id).holder():
            case None:
                await super()._cancel_run(flow_run_id)
            case 0:
                await self._settle(flow_run_id, "Its flow process is gone.")
            case pid:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, CANCEL_SIGNAL)

    async def _settle(self, flow_run_id: UUID, explanation: str) -> None:
        """Give a job whose flow process is gone a final state, if it has none."""
        try:
            flow_run = await self.client.read_flow_run(flow_run_id)
        except ObjectNotFound:
            return
        if flow_run.state is None or flow_run.state.is_final():
            return
        is_cancelled = flow_run.state.is_cancelling()
        await close_task_runs(self.client, flow_run_id, is_cancelled=is_cancelled)
        state: State[None] = (
            Cancelled(message="The job was cancelled.") if is_cancelled else Crashed(message=explanation)
        )
        await self.client.set_flow_run_state(flow_run_id, state, force=True)
        logger.warning("Job %s is now %s: %s", flow_run_id, state.name, explanation)

    async def _settle_lost_jobs(self) -> None:
        adopted: set[UUID] = set()
        for flow_run in await _active_flow_runs(self.client, self._work_pool_name):
            found = Found(
                is_ours=flow_run.id in self._flow_processes or flow_run.id in self._submitting_flow_run_ids,
                is_cancelling=flow_run.state is not None and flow_run.state.is_cancelling(),
                sign=sign_of(self._workspace(flow_run.id).holder()),
            )
            match judge(found):
                case Lost.FLOW_PROCESS:
                    await self._settle(flow_run.id, "Its flow process and its worker are gone.")
                case Lost.BEFORE_ITS_START:
                    if await self._was_never_started(flow_run):
                        await self._settle(flow_run.id, "Its worker was gone before it could start the job.")
                case Lost.WORKER:
                    adopted.add(flow_run.id)
                case Lost.NOTHING:
                    pass
            if found.is_to_be_cancelled:
                self._start_soon(self._cancel_run, flow_run.id)
        self._adopt(adopted)

    def _adopt(self, flow_run_ids: set[UUID]) -> None:
        """Jobs that a worker before this one has started count against the limit as well."""
        if self._limiter is None:
            return
        # In a name of their own: one that ends and is run again takes a slot of this worker's beside it.
        for ended in self._adopted - flow_run_ids:
            self._limiter.release_on_behalf_of(("adopted", ended))
        self._adopted &= flow_run_ids
        for flow_run_id in flow_run_ids - self._adopted:
            with contextlib.suppress(anyio.WouldBlock):  # they run, however many they are
                self._limiter.acquire_on_behalf_of_nowait(("adopted", flow_run_id))
                self._adopted.add(flow_run_id)

    async def _was_never_started(self, flow_run: FlowRun) -> bool:
        if flow_run.state is None:
            return False
        started_by = flow_run.labels.get("prefect.worker.name")
        start = Start(
            age=datetime.now(UTC) - flow_run.state.timestamp,
            has_run=flow_run.start_time is not None,
            worker=None if started_by is None else str(started_by),
        )
        if not may_be_lost(start, this_worker=self.name):
            return False
        workers = await self.client.read_workers_for_work_pool(self._work_pool_name)
        online = {worker.name for worker in workers if worker.status == "ONLINE"}
        return is_lost(start, online, this_worker=self.name)

    async def _end_flow_processes(self) -> None:
        """Let the running jobs write down that they were interrupted: nobody would look after them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLAIM_SECONDS):
                while self._submitting_flow_run_ids:
                    await asyncio.sleep(0.05)
        processes = list(self._flow_processes.values())
        drain_seconds = WorkerSettings().drain_seconds
        if processes and drain_seconds:
            logger.info("Stopping when %d jobs have ended, or in %g s.", len(processes), drain_seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds):
                    await asyncio.gather(*(process.wait() for process in processes))
        for process in processes:
            process.send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await asyncio.gather(*(process.wait() for process in processes))

    def _workspace(self, flow_run_id: UUID) -> Workspace:
        return Workspace(self._workspace_settings, flow_run_id)


async def _active_flow_runs(client: PrefectClient, work_pool: str) -> list[FlowRun]:
    """Every flow run of the pool that is neither waiting nor final."""
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_ACTIVE))
            ),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[work_pool])),
            limit=200,
            offset=len(found),
        )
        found += page
        if len(page) < 200:
            return found


def _explanation(exit_code: int | None) -> str:
    if exit_code is None or exit_code == 0:
        return "Its flow process ended without saying how the job ended."
    if exit_code < 0:
        return f"Its flow process was killed by {signal.Signals(-exit_code).name}."
    return f"Its flow process ended with exit code {exit_code} and did not say how the job ended."
