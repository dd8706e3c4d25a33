"""Closes the task runs of a job whose flow process is gone, so that none appears to be running."""

import asyncio
import time
from uuid import UUID

import orjson
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType, TaskRun

from flows.contract.spec import RuleJobState
from flows.record.task_runs import JsonObject, StateChange, isoformat, state_change_event

_OPEN = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]
_ROUNDS = 20
_PAUSE_SECONDS = 0.5


async def close_task_runs(client: PrefectClient, flow_run_id: UUID, *, is_cancelled: bool) -> None:
    """Put every task run that is not final into a final state, and wait until it is recorded.

    The server may not have recorded yet what the flow process sent just before its end. So this asks
    until there is nothing open twice in a row. It gives up after ten seconds without a change.
    """
    before: set[UUID] | None = None
    unchanged_rounds = 0
    while unchanged_rounds < _ROUNDS:
        task_runs = await _open_task_runs(client, flow_run_id)
        still_open = {task_run.id for task_run in task_runs}
        if not still_open and before == still_open:
            return
        unchanged_rounds = unchanged_rounds + 1 if still_open == before else 0
        before = still_open
        if task_runs:
            now = time.time()
            events = [_closing_event(task_run, flow_run_id, now, is_cancelled) for task_run in task_runs]
            await client.request(
                "POST", "/events", content=orjson.dumps(events), headers={"Content-Type": "application/json"}
            )
        await asyncio.sleep(_PAUSE_SECONDS)


async def _open_task_runs(client: PrefectClient, flow_run_id: UUID) -> list[TaskRun]:
    """One page of them."""
    return await client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_OPEN))),
        limit=200,
    )


def _closing_event(task_run: TaskRun, flow_run_id: UUID, now: float, is_cancelled: bool) -> JsonObject:
    if task_run.run_count == 0:
        state = StateChange(
            StateType.CANCELLED, RuleJobState.NOT_RUN, now, "The job ended before it could run."
        )
    elif is_cancelled:
        state = StateChange(StateType.CANCELLED, "Cancelled", now, "The job was cancelled.")
    else:
        state = StateChange(StateType.CRASHED, "Crashed", now, "The flow process of the job is gone.")
    columns = {
        "name": task_run.name,
        "task_key": task_run.task_key,
        "dynamic_key": task_run.dynamic_key,
        "run_count": task_run.run_count,
        "end_time": isoformat(now),
    }
    return state_change_event(flow_run_id, task_run.id, columns, state)
