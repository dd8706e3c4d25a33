"""The warm worker: a Prefect worker type that forks flow processes instead of starting a new Python.

    prefect worker start --pool snakemake --type snakemake

A job runs as long as its flow process. The worker makes sure that Prefect gets a final state:

| what ends                        | who notices                   | state of the job        |
|----------------------------------|-------------------------------|-------------------------|
| the flow, with a final state     | –                             | as the flow reports it  |
| the flow process, without one    | this worker, at once          | Crashed, or Cancelled   |
| worker and flow process together | the next worker, at its start | Crashed, or Cancelled   |
| only the worker                  | the next worker, which adopts the job | as the flow reports it |
| the worker before it forked      | the next worker               | Scheduled again         |
| the start, because Prefect or the disk fails | this worker       | Scheduled again         |

"The next worker" finds what one of the same name has left at its start; what a worker of another name has
left, once Prefect considers that one offline.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.context import SettingsContext, root_settings_context
from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.contract.environments import EnvironmentSettings
from flows.contract.isolation import IsolationSettings
from flows.contract.variables import JOB_VARIABLES, WORKER_NAME
from flows.environments.making import Environments
from flows.environments.variables import visible_variables
from flows.environments.warm import WarmStart
from flows.termination import CANCEL_SIGNAL
from flows.worker.clusters import clear_cluster
from flows.worker.finding import Finder
from flows.worker.housekeeping import keep_house
from flows.worker.isolation_probe import check_isolation
from flows.worker.job_configuration import Deployments, job_variables_of
from flows.worker.lost_jobs import Lost
from flows.worker.missed_times import REASON, SKIPPED, missed
from flows.worker.settling import (
    ExitCode,
    claim,
    claim_of,
    explanation_of,
    give_back,
    settle,
    when_prefect_answers,
)
from flows.worker.silent_runs import SILENCE_SECONDS, SilentRuns
from flows.worker.warm_environments import WarmEnvironments, WarmSettings
from flows.worker.zygote_client import AdoptedProcess, FlowProcess, ZygoteClient
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace

SHUTDOWN_SECONDS = 15.0

_CANCELLING = "prefect.flow-run.Cancelling"
_ENDED = [f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled")]
_FREES_OR_WANTS_A_SLOT = ["prefect.flow-run.Scheduled", *_ENDED]
_LISTEN_AGAIN_SECONDS = 2.0
_CLAIM_SECONDS = 10.0
_LOOK_SECONDS = 5.0
_MOST_RETRIES = 2
_MOST_STARTS = 20

logger = logging.getLogger("prefect.workers.snakemake")


class WorkerSettings(BaseSettings):
    """The operator's settings for the worker."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    drain_seconds: float = Field(
        default=0,
        ge=0,
        le=604_800,
        description="How long a stopping worker waits for its jobs to end. It accepts no new ones.",
    )

    attached_silence_seconds: float = Field(
        default=SILENCE_SECONDS,
        ge=1,
        le=86_400,
        description="How long an attached run may give no sign of life before it is Crashed. It gives one "
        "every 30 seconds.",
    )


class SnakemakeWorkerResult(BaseWorkerResult):
    """The flow process has ended, and Prefect has the final state of the job."""


class SnakemakeWorker(BaseWorker[BaseJobConfiguration, BaseVariables, SnakemakeWorkerResult]):
    """Runs each job in a process that is forked from one with all imports done."""

    type = "snakemake"
    job_configuration = BaseJobConfiguration
    job_configuration_variables = BaseVariables
    _display_name = "Snakemake"
    _description = (
        "Run Snakemake workflows as flow runs on this machine, each in a process forked from a warm one."
    )

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """Only has variables that matter to a forked process.

        Prefect validates this schema and the variables of each flow run that is created. With all of
        `BaseVariables`, that is half the cost of a submission for the server.
        """
        env = {"title": "Environment Variables", "type": "object", "default": {}}
        return {
            "job_configuration": {"env": "{{ env }}"},
            "variables": {"type": "object", "properties": {"env": env}},
        }

    async def setup(self) -> None:
        self._workspace_settings = WorkspaceSettings()
        isolation = IsolationSettings()
        check_isolation(isolation, self._workspace_settings.home.resolve())
        self._warm = WarmEnvironments(WarmSettings(), visible_variables(isolation.visible_variables))
        self._zygote = ZygoteClient(warm_starts=self._warm.descriptor)
        self._flow_processes: dict[UUID, FlowProcess] = {}
        self._cancelled_early: set[UUID] = set()
        self._given_back: set[UUID] = set()
        self._starts: Counter[UUID] = Counter()
        self._finder = Finder(
            self.name, self._work_pool_name, datetime.now(UTC), self._is_ours, self._workspace
        )
        self._silent_runs = SilentRuns(WorkerSettings().attached_silence_seconds)
        self._adopted: set[UUID] = set()
        self._adopted_jobs: set[UUID] = set()
        self._is_stopping = False
        self._poll = asyncio.Lock()
        self._poll_is_due = False
        self._claims: dict[UUID, asyncio.Event] = {}
        self._has_left_some = False
        """Whether jobs were found at the last poll that are more than this worker may run."""
        self._deployments = Deployments()
        self._listener: asyncio.Task[None] | None = None
        self._settings_context = _impatient_settings()
        self._settings_context.__enter__()
        self._warm.start()
        self._prepare_default_environment()
        self._looking = asyncio.create_task(self._look_for_lost_jobs())
        self._housekeeping = asyncio.create_task(keep_house(self._workspace_settings.home.resolve()))
        await self._zygote.start()
        await super().setup()

    async def teardown(self, *exc_info: Any) -> None:
        self._is_stopping = True
        if self._listener is not None:
            self._listener.cancel()
        self._looking.cancel()
        self._housekeeping.cancel()
        if len(exc_info) > 1 and isinstance(exc_info[1], Exception):
            logger.error(
                "The worker ends because of an error; %d jobs continue without it.", len(self._flow_processes)
            )
        else:
            await self._end_flow_processes()
        await super().teardown(*exc_info)
        self._zygote.close()
        self._warm.close()
        self._settings_context.__exit__(None, None, None)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> SnakemakeWorkerResult:
        """Fork the job's flow process, and stay until Prefect has the job's final state.

        Raises what kept it from being forked; later errors are logged.
        """
        environment = {
            **os.environ,
            **self._zygote.settings,
            **configuration.env,
            JOB_VARIABLES: ",".join(configuration.env),
            WORKER_NAME: self.name,
        }
        process = await self._zygote.fork(
            flow_run.id,
            {name: value for name, value in environment.items() if value is not None},
        )
        # It stays in the table until Prefect has its final state: a job that is not there looks lost.
        self._flow_processes[flow_run.id] = process
        if task_status is not None:
            task_status.started()
        try:
            await self._see_to_its_end(flow_run.id, process)
        except Exception:
            logger.exception("Job %s: can't report its end to Prefect.", flow_run.id)
        finally:
            del self._flow_processes[flow_run.id]
            self._release_limit_slot(flow_run.id)
        if self._has_left_some:  # Prefect's event about the end may have come before the slot was free
            self._start_soon(self.get_and_submit_flow_runs)
        return SnakemakeWorkerResult(status_code=0, identifier=process.identifier)

    async def _see_to_its_end(self, flow_run_id: UUID, process: FlowProcess) -> None:
        match await process.wait():
            case ExitCode.FINAL:
                self._starts.pop(flow_run_id, None)
            case ExitCode.NOT_STARTED:
                await self._start_later(flow_run_id)
            case exit_code:
                self._starts.pop(flow_run_id, None)
                await self._settle(flow_run_id, explanation_of(exit_code))

    def _prepare_default_environment(self) -> None:
        """Start a zygote for the first job, if the default environment exists already."""
        environments = Environments(EnvironmentSettings(), self._workspace_settings.home)
        environment = environments.ready(environments.wanted(None))
        if environment is not None:
            self._warm.prepare(WarmStart(str(environment.python), str(environment.runtime)))

    async def sync_with_backend(self) -> None:
        """Also settle lost jobs, before this worker takes others: they count against its limit.

        While Prefect is unreachable, keep trying: Prefect's own loop would give up after some minutes.
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
            logger.warning("Can't send a heartbeat to Prefect (%s); retrying.", error)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        if self._poll_is_due or self._is_stopping:
            return []  # a poll that is already due will find the same
        self._poll_is_due = True
        async with self._poll:  # both the polling loop and the listener call this
            self._poll_is_due = False
            self._claims = {}
            try:
                taken = await super().get_and_submit_flow_runs()
            except httpx.HTTPError as error:
                logger.warning("Can't get jobs from Prefect (%s); retrying.", error)
                return []
            # Prefect returns rows that are not locked, and the limit of a queue counts Pending runs. Polling
            # again before these are Pending would return others as well, and exceed the limit.
            claims = [self._claims[run.id].wait() for run in taken if run.id in self._claims]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLAIM_SECONDS):
                    await asyncio.gather(*claims)
            return taken

    async def _submit_scheduled_flow_runs(
        self, flow_run_response: list[WorkerFlowRunResponse]
    ) -> list[FlowRun]:
        skipped = missed((entry.flow_run for entry in flow_run_response), datetime.now(UTC))
        for run in skipped:
            await self.client.set_flow_run_state(run.id, Cancelled(name=SKIPPED, message=REASON))
        left = [entry for entry in flow_run_response if entry.flow_run not in skipped]
        self._claims = {entry.flow_run.id: asyncio.Event() for entry in left}
        self._deployments = Deployments()
        taken = await super()._submit_scheduled_flow_runs(left)
        self._has_left_some = len(taken) < len(left)
        return taken

    async def _claim(self, flow_run_id: UUID) -> bool:
        """Claim the job, and be certain of it: an answer of Prefect may be lost."""
        ask = partial(claim, self.client, flow_run_id, claim_of(self.name))
        try:
            return await when_prefect_answers(ask, self._keeps_trying)
        finally:
            self._mark_claimed(flow_run_id)

    def _mark_claimed(self, flow_run_id: UUID) -> None:
        if event := self._claims.get(flow_run_id):
            event.set()

    async def _start_again(self, flow_run_id: UUID) -> None:
        """It could not be started, and nothing of it has run: let it wait again.

        A job that can't be started again and again is at fault itself, and crashes.
        """
        self._starts[flow_run_id] += 1
        if self._starts[flow_run_id] < _MOST_STARTS:
            await self._give_back(flow_run_id)
        else:
            del self._starts[flow_run_id]
            await self._settle(flow_run_id, "Its worker could not start it; the worker's log says why.")

    async def _start_later(self, flow_run_id: UUID) -> None:
        """Its flow process could not begin: another runs it already, or the disk is full."""
        if self._workspace(flow_run_id).holder():
            return
        await asyncio.sleep(_LOOK_SECONDS)
        await self._give_back(flow_run_id)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Claim the job and start it.

        In place of Prefect's, which reads the deployment twice and the flow, and sends labels, a pid and two
        events for each job. The flow process sends the label and the pid with what it has to send anyway.
        """
        is_started = False
        try:
            if await self._claim(flow_run.id):
                is_started = await self._start_claimed(flow_run)
        except Exception as error:  # it stays Scheduled and is returned again
            is_away = isinstance(error, httpx.HTTPError)
            logger.warning("Could not start job %s: %r", flow_run.id, error, exc_info=not is_away)
        finally:
            self._submitting_flow_run_ids.discard(flow_run.id)
            self._mark_claimed(flow_run.id)
        if not is_started:
            self._release_limit_slot(flow_run.id)
        if flow_run.id in self._cancelled_early:
            self._cancelled_early.remove(flow_run.id)
            await self._cancel_run(flow_run.id)

    async def _start_claimed(self, flow_run: FlowRun) -> bool:
        """Whether the job has a flow process now. If not, it waits again or has a final state."""
        assert self._runs_task_group is not None
        try:
            deployment = await self._deployments.read(self.client, flow_run.deployment_id)
            configuration: BaseJobConfiguration = await self.job_configuration.from_template_and_values(
                self.work_pool.base_job_template, job_variables_of(flow_run, deployment), client=self.client
            )
            await self._runs_task_group.start(self.run, flow_run, configuration)
        except ObjectNotFound:
            await self._settle(flow_run.id, "Its deployment was deleted before it began.")
        except Exception:
            logger.exception("Job %s could not be started.", flow_run.id)
            await self._start_again(flow_run.id)
        else:
            return True
        return False

    async def _listen(self, work_pool_id: UUID) -> None:
        """React to new jobs and cancellations at once. Polling and heartbeats are the fallback."""
        events = EventFilter(
            event=EventNameFilter(name=[_CANCELLING, *_FREES_OR_WANTS_A_SLOT]),
            any_resource=EventAnyResourceFilter(id=[f"prefect.work-pool.{work_pool_id}"]),
        )
        while True:
            try:
                async with get_events_subscriber(filter=events) as subscriber:
                    await self._settle_lost_jobs()  # some may have been cancelled before the subscription
                    async for event in subscriber:
                        await self._act_on(event)
            except Exception as error:  # noqa: BLE001 - Prefect and websockets raise many types, also plain `Exception`
                logger.warning("Can't receive Prefect's events (%s); retrying.", error)
                await asyncio.sleep(_LISTEN_AGAIN_SECONDS)

    async def _act_on(self, event: Event) -> None:
        if event.event in _FREES_OR_WANTS_A_SLOT:
            self._start_soon(self.get_and_submit_flow_runs)
        else:
            flow_run_id = UUID(event.resource.id.removeprefix("prefect.flow-run."))
            self._start_soon(self._cancel_run, flow_run_id)

    def _start_soon(self, call: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Run it in the background. An error is logged, and affects neither the worker nor other jobs."""

        async def do() -> None:
            try:
                await call(*arguments)
            except Exception:
                logger.exception("An error in a background call; the worker continues.")

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
        work = self._workspace(flow_run_id).work
        await when_prefect_answers(partial(clear_cluster, self.client, flow_run_id, work), self._keeps_trying)
        await when_prefect_answers(partial(settle, self.client, flow_run_id, explanation), self._keeps_trying)

    def _keeps_trying(self) -> bool:
        return not self._is_stopping

    async def _give_back(self, flow_run_id: UUID) -> None:
        """Let a job wait again that this worker, or one before it, has claimed and not started."""
        self._given_back.add(flow_run_id)
        try:
            await when_prefect_answers(partial(give_back, self.client, flow_run_id), self._keeps_trying)
        finally:
            self._given_back.discard(flow_run_id)
        self._start_soon(self.get_and_submit_flow_runs)

    async def _look_for_lost_jobs(self) -> None:
        """Every few seconds."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._work_pool is not None and self.is_setup:
                try:
                    await self._settle_lost_jobs()
                    await self._silent_runs.settle(self.client)
                except httpx.HTTPError as error:
                    logger.warning("Can't read the jobs from Prefect (%s); retrying.", type(error).__name__)
                except Exception:
                    logger.exception("Can't look for lost jobs; retrying.")

    async def _settle_lost_jobs(self) -> None:
        adopted: set[UUID] = set()
        for flow_run_id, lost, is_to_be_cancelled in await self._finder.find(self.client):
            match lost:
                case Lost.FLOW_PROCESS:
                    await self._settle(flow_run_id, "Its flow process and its worker are gone.")
                case Lost.BEFORE_ITS_START:
                    await self._give_back(flow_run_id)
                case Lost.WORKER:
                    adopted.add(flow_run_id)
                case Lost.NOTHING:
                    pass
            if is_to_be_cancelled:
                self._start_soon(self._cancel_run, flow_run_id)
        self._adopt(adopted)

    def _is_ours(self, flow_run_id: UUID) -> bool:
        return any(
            flow_run_id in known
            for known in (self._flow_processes, self._submitting_flow_run_ids, self._given_back)
        )

    def _adopt(self, flow_run_ids: set[UUID]) -> None:
        """Count jobs that an earlier worker has started against the limit as well."""
        self._adopted_jobs = flow_run_ids
        if self._limiter is None:
            return
        # Under a separate name: a job that ends and is run again takes its own slot of this worker.
        for ended in self._adopted - flow_run_ids:
            self._limiter.release_on_behalf_of(("adopted", ended))
        self._adopted &= flow_run_ids
        for flow_run_id in flow_run_ids - self._adopted:
            with contextlib.suppress(anyio.WouldBlock):  # they run already, even if they exceed the limit
                self._limiter.acquire_on_behalf_of_nowait(("adopted", flow_run_id))
                self._adopted.add(flow_run_id)

    async def _end_flow_processes(self) -> None:
        """Let running jobs record that they were interrupted, because no process would watch them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLAIM_SECONDS):
                while self._submitting_flow_run_ids:
                    await asyncio.sleep(0.05)
        with contextlib.suppress(httpx.HTTPError):
            await self._settle_lost_jobs()  # this worker may not know yet what the one before it has left
        processes: list[FlowProcess | AdoptedProcess] = [
            *self._flow_processes.values(),
            *(AdoptedProcess(self._workspace(flow_run_id)) for flow_run_id in self._adopted_jobs),
        ]
        drain_seconds = WorkerSettings().drain_seconds
        if processes and drain_seconds:
            logger.info("Stopping when %d jobs have ended, or after %g s.", len(processes), drain_seconds)
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


def _impatient_settings() -> SettingsContext:
    """Give up a request after some seconds: this worker tries again sooner than Prefect's client."""
    current = SettingsContext.get() or root_settings_context()
    client = current.settings.client.model_copy(update={"max_retries": _MOST_RETRIES})
    return SettingsContext(
        profile=current.profile, settings=current.settings.model_copy(update={"client": client})
    )
