"""Translates rule jobs for Prefect: task-run state changes, and log entries.

A state change is sent as the event that Prefect's own engine sends
(`prefect.utilities.engine.emit_task_run_state_change_event`, Prefect 3.8), because the server
records those in bulk (docs/performance.md). This interface is not documented, hence the contract
tests in `tests/flows/record/test_task_runs.py`.

Everything here is a pure function of its arguments.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from prefect.client.schemas.objects import StateType

from flows.contract.rule_job_ids import task_run_id_of as task_run_id_of

JsonObject = dict[str, Any]

_ROLE = "prefect.resource.role"
_RESOURCE_ID = "prefect.resource.id"


@dataclass(frozen=True, slots=True)
class StateChange:
    """A new state of a task run."""

    type: StateType
    name: str
    timestamp: float
    """Seconds since the epoch. The server ignores a change that is older than the recorded one."""
    message: str = ""


def state_change_event(
    flow_run_id: UUID, task_run_id: UUID, task_run: Mapping[str, Any], state: StateChange
) -> JsonObject:
    """An event for `POST /events` that puts `task_run` (columns of Prefect's `TaskRun`) into `state`.

    The same state of the same time is the same event, which may be sent more than once.
    """
    occurred = isoformat(state.timestamp)
    run_count = task_run.get("run_count", 0)
    return {
        "id": str(uuid5(task_run_id, f"{state.name}-{run_count}-{state.timestamp!r}")),
        "occurred": occurred,
        "event": f"prefect.task-run.{state.name}",
        "resource": {
            _RESOURCE_ID: f"prefect.task-run.{task_run_id}",
            "prefect.resource.name": task_run["name"],
            "prefect.run-count": str(run_count),
            "prefect.state-message": state.message,
            "prefect.state-name": state.name,
            "prefect.state-timestamp": occurred,
            "prefect.state-type": state.type.value,
            "prefect.orchestration": "client",
        },
        "related": [{_RESOURCE_ID: f"prefect.flow-run.{flow_run_id}", _ROLE: "flow-run"}],
        "payload": {
            "intended": {"from": None, "to": state.type.value},
            "initial_state": None,
            "validated_state": {
                "type": state.type.value,
                "name": state.name,
                "message": state.message,
                "state_details": {},
                "data": None,
            },
            "task_run": dict(task_run),
        },
    }


def task_inputs(upstream: Iterable[UUID]) -> JsonObject:
    """The edges of Prefect's graph, from the task runs in `upstream`."""
    return {"depends_on": [{"input_type": "task_run", "id": str(task_run_id)} for task_run_id in upstream]}


def log_entry(
    flow_run_id: UUID, task_run_id: UUID | None, level: int, message: str, timestamp: float
) -> JsonObject:
    """An entry for `POST /logs/`."""
    return {
        "name": "prefect.flow_runs" if task_run_id is None else "prefect.task_runs",
        "level": level,
        "message": message,
        "timestamp": isoformat(timestamp),
        "flow_run_id": str(flow_run_id),
        "task_run_id": None if task_run_id is None else str(task_run_id),
    }


def isoformat(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat()
