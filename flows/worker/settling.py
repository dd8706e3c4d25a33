"""What a worker reports to Prefect about jobs that no process runs: a final state, or that they wait again.

Prefect may be away at that moment, or its database, which it answers with 500. So these calls repeat
until Prefect has answered.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import TypeVar
from uuid import UUID, uuid4

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
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Cancelled, Crashed, Pending, Scheduled
from prefect.utilities.engine import propose_state

from flows.worker.close_task_runs import close_task_runs


class ExitCode(IntEnum):
    """What the exit code of a flow process says about its job. Any other says as much as `NOT_FINAL`."""

    FINAL = 0
    """Prefect has accepted a final state."""
    NOT_FINAL = 1
    """Prefect may have no final state."""
    NOT_STARTED = 75
    """It could not begin, and has changed nothing (EX_TEMPFAIL)."""


_CLAIMED_BY = "Claimed by "
_AGAIN_SECONDS = 1.0
_SERVER_ERROR = 500
_ACTIVE = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]

logger = logging.getLogger("prefect.workers.snakemake")
Answer = TypeVar("Answer")


async def when_prefect_answers(
    call: Callable[[], Awaitable[Answer]], keeps_trying: Callable[[], bool]
) -> Answer:
    """The result of `call`, which is repeated while Prefect is unreachable or reports an error of its own.

    Raises the last error when `keeps_trying` says no.
    """
    while True:
        try:
            return await call()
        except httpx.HTTPError as error:
            is_refusal = (
                isinstance(error, httpx.HTTPStatusError) and error.response.status_code < _SERVER_ERROR
            )
            if is_refusal or not keeps_trying():
                raise
            logger.warning("Prefect does not answer (%s); retrying.", type(error).__name__)
            await asyncio.sleep(_AGAIN_SECONDS)


def claim_of(worker: str) -> str:
    """The message of a claim, by which the worker knows it again."""
    return f"{_CLAIMED_BY}{worker} ({uuid4()})."


def claimed_by(message: str | None) -> str | None:
    """The worker that a claim is of; None if it is no claim."""
    if message is None or not message.startswith(_CLAIMED_BY):
        return None
    return message.removeprefix(_CLAIMED_BY).rpartition(" (")[0]


async def claim(client: PrefectClient, flow_run_id: UUID, message: str) -> bool:
    """Set the job to Pending. Whether this call has done it, or an earlier one with this `message`.

    Prefect aborts the second claim of a job, also where the answer to the first one was lost.
    """
    try:
        state = await propose_state(client, Pending(message=message), flow_run_id=flow_run_id)
        return state.is_pending()
    except Abort:
        known = (await client.read_flow_run(flow_run_id)).state
        return known is not None and known.is_pending() and known.message == message
    except ObjectNotFound:
        return False


async def settle(client: PrefectClient, flow_run_id: UUID, explanation: str) -> None:
    """Give a job whose flow process is gone a final state, unless it has one."""
    open_state = await _open_state(client, flow_run_id)
    if open_state is None:
        return
    is_cancelled = open_state.is_cancelling()
    await close_task_runs(client, flow_run_id, is_cancelled=is_cancelled)
    state: State[None] = (
        Cancelled(message="The job was cancelled.") if is_cancelled else Crashed(message=explanation)
    )
    await client.set_flow_run_state(flow_run_id, state, force=True)
    logger.warning("Job %s is now %s: %s", flow_run_id, state.name, explanation)


async def give_back(client: PrefectClient, flow_run_id: UUID) -> None:
    """Let a job wait again that was claimed, and of which no process has begun anything."""
    open_state = await _open_state(client, flow_run_id)
    if open_state is None:
        return
    if open_state.is_cancelling():
        await client.set_flow_run_state(
            flow_run_id, Cancelled(message="The job was cancelled before it began."), force=True
        )
    elif open_state.is_pending():
        await client.set_flow_run_state(flow_run_id, Scheduled())  # not by force: it may just be cancelled
        logger.warning("Job %s could not be started, and waits again.", flow_run_id)


async def _open_state(client: PrefectClient, flow_run_id: UUID) -> State[None] | None:
    """The state of a job that has not ended; None if it has, or is gone."""
    try:
        state = (await client.read_flow_run(flow_run_id)).state
    except ObjectNotFound:
        return None
    return None if state is None or state.is_final() else state


async def active_flow_runs(client: PrefectClient, work_pool: str) -> list[FlowRun]:
    """Every flow run of the pool that is neither scheduled nor final."""
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


def explanation_of(exit_code: int | None) -> str:
    """Why the flow process has ended, for the submitter."""
    if exit_code is None or exit_code == ExitCode.NOT_FINAL:
        return "Its flow process ended without reporting a final state."
    if exit_code < 0:
        return f"Its flow process was killed by {signal.Signals(-exit_code).name}."
    return f"Its flow process ended with exit code {exit_code} and did not report a final state."
