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
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import httpx
import psutil
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
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.contract.spec import EngineName
from flows.termination import CANCEL_SIGNAL
from flows.worker.close_task_runs import close_task_runs
from flows.worker.zygote import Fork
from flows.workspace.workspace import Workspace, WorkspaceSettings

CANCEL_SECONDS = 120.0
"""After this, a flow process that was asked to cancel its job is killed. It needs 1–8 s, and 5 s more
for each thousand rule jobs that Prefect has to record, and the time to publish outputs."""

SHUTDOWN_SECONDS = 15.0
LOST_AFTER = timedelta(seconds=60)
"""A job that is Pending for longer, and whose worker is offline, was never started."""

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
        self._zygote = Zygote()
        self._flow_processes: dict[UUID, FlowProcess] = {}
        self._cancelled_early: set[UUID] = set()
        self._adopted: set[UUID] = set()
        self._is_stopping = False
        self._poll = asyncio.Lock()
        self._poll_is_due = False
        self._claims: dict[UUID, asyncio.Event] = {}
        self._listener: asyncio.Task[None] | None = None
        await self._zygote.start()
        await super().setup()

    async def teardown(self, *exc_info: Any) -> None:
        self._is_stopping = True
        if self._listener is not None:
            self._listener.cancel()
        if len(exc_info) > 1 and isinstance(exc_info[1], Exception):
            logger.error("The worker ends by a fault; %d jobs go on without it.", len(self._flow_processes))
        else:
            await self._end_flow_processes()
        await super().teardown(*exc_info)
        self._zygote.close()

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
            with_keeper=flow_run.parameters.get("engine", EngineName.SNAKEMAKE) != EngineName.MOCK,
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
            is_cancelling = flow_run.state is not None and flow_run.state.is_cancelling()
            if flow_run.id in self._flow_processes or flow_run.id in self._submitting_flow_run_ids:
                if is_cancelling:
                    self._start_soon(self._cancel_run, flow_run.id)
                continue
            match self._workspace(flow_run.id).holder():
                case 0:
                    await self._settle(flow_run.id, "Its flow process and its worker are gone.")
                case None:
                    if await self._was_never_started(flow_run):
                        await self._settle(flow_run.id, "Its worker was gone before it could start the job.")
                case _:  # the worker that has started it is gone
                    adopted.add(flow_run.id)
                    if is_cancelling:
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
        """Also when its machine went down in the moment between its start and the lock on its directory."""
        state, worker = flow_run.state, flow_run.labels.get("prefect.worker.name")
        if state is None or (flow_run.start_time is not None and worker != self.name):
            return False
        if datetime.now(UTC) - state.timestamp < LOST_AFTER:
            return False
        workers = await self.client.read_workers_for_work_pool(self._work_pool_name)
        online = {worker.name for worker in workers if worker.status == "ONLINE"}
        # This worker has just looked into its own table.
        return worker not in online - {self.name}

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


@dataclass
class FlowProcess:
    """A forked flow process. It is the zygote's child, so the zygote tells of its end."""

    pid: int
    identifier: str
    _exit_code: "asyncio.Future[int | None]"

    async def wait(self) -> int | None:
        """Its exit code, negative for a signal; None if nobody can tell."""
        return await asyncio.shield(self._exit_code)

    async def cancel(self) -> None:
        """Ask it to cancel its job; kill it when it does not."""
        self.send(CANCEL_SIGNAL)
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        if not self._exit_code.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def has_exited(self, exit_code: int | None) -> None:
        if not self._exit_code.done():
            self._exit_code.set_result(exit_code)


@dataclass
class Zygote:
    """The worker's end of `flows.worker.zygote`; starts it again when it is gone."""

    _process: "subprocess.Popen[bytes] | None" = None
    _writer: asyncio.StreamWriter | None = None
    _forks: dict[str, "asyncio.Future[FlowProcess]"] = field(default_factory=dict)
    _flow_processes: dict[int, FlowProcess] = field(default_factory=dict)
    _reader: "asyncio.Task[None] | None" = None
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> asyncio.StreamWriter:
        """Start the zygote's process, wait until it has imported everything, and return the way to it."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.worker.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],
                # Also what a profile says: flow processes get it, and inherit what they need not read.
                env={**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True)},
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        if not await reader.readline():
            raise RuntimeError(f"the zygote ended with exit code {self._process.wait()} while starting")
        self._reader = asyncio.create_task(self._read(reader))
        self._writer = writer
        return writer

    async def fork(self, flow_run_id: UUID, environment: dict[str, str], *, with_keeper: bool) -> FlowProcess:
        """A flow process for this flow run."""
        async with self._starting:
            writer = self._writer or await self.start()
        forked: asyncio.Future[FlowProcess] = asyncio.get_running_loop().create_future()
        self._forks[str(flow_run_id)] = forked
        message = Fork(flow_run_id=str(flow_run_id), environment=environment, with_keeper=with_keeper)
        writer.write(json.dumps(asdict(message)).encode() + b"\n")
        return await forked

    def close(self) -> None:
        """End the zygote; flow processes that still run go on."""
        if self._reader is not None:
            self._reader.cancel()
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            if "flow_run_id" in message:
                self._has_forked(message)
            else:
                process = self._flow_processes.pop(message["pid"], None)
                if process is not None:
                    process.has_exited(message["exit_code"])
        logger.error("The zygote is gone; a new one is started with the next job.")
        await self._outlive_zygote()

    def _has_forked(self, message: dict[str, Any]) -> None:
        pid = message["pid"]
        process = FlowProcess(
            pid=pid,
            identifier=f"{socket.gethostname()}:{pid}:{message['started_at']}",
            _exit_code=asyncio.get_running_loop().create_future(),
        )
        self._flow_processes[pid] = process
        self._forks.pop(message["flow_run_id"]).set_result(process)

    async def _outlive_zygote(self) -> None:
        """Without the zygote, nobody collects the flow processes: watch them by their pids."""
        self._writer = None
        for forked in self._forks.values():
            forked.set_exception(RuntimeError("the zygote was gone before it could fork"))
        self._forks.clear()
        orphans, self._flow_processes = self._flow_processes, {}
        while orphans:
            for pid in [pid for pid in orphans if not psutil.pid_exists(pid)]:
                orphans.pop(pid).has_exited(None)
            await asyncio.sleep(0.5)


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
