"""Translates rule jobs for Prefect: state changes of task runs, and log entries. Pure.

A state change is sent as the event that Prefect's own engine sends, because the server records those in
bulk. It is the same JSON that the service sends for its own jobs (`flows/record/task_runs.py`); tests
hold both together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

JsonObject = dict[str, Any]

_ROLE = "prefect.resource.role"
_RESOURCE_ID = "prefect.resource.id"


@dataclass(frozen=True, slots=True)
class State:
    """A state of a task run."""

    type: str
    """One of Prefect's types, such as `RUNNING`."""
    name: str
    time: float
    """Seconds since the epoch. The server ignores a state that is older than the recorded one."""
    message: str = ""


def task_run_id_of(flow_run_id: UUID, job_id: int) -> UUID:
    """The task run of a rule job: always the same one for the same rule job of the same run."""
    return uuid5(flow_run_id, f"rule-job-{job_id}")


def state_change_event(
    flow_run_id: UUID, task_run_id: UUID, task_run: Mapping[str, Any], state: State
) -> JsonObject:
    """An event for `POST /events` that puts `task_run` (columns of Prefect's `TaskRun`) into `state`.

    The same state of the same time is the same event, which may be sent more than once.
    """
    occurred = isoformat(state.time)
    run_count = task_run.get("run_count", 0)
    return {
        "id": str(uuid5(task_run_id, f"{state.name}-{run_count}-{state.time!r}")),
        "occurred": occurred,
        "event": f"prefect.task-run.{state.name}",
        "resource": {
            _RESOURCE_ID: f"prefect.task-run.{task_run_id}",
            "prefect.resource.name": task_run["name"],
            "prefect.run-count": str(run_count),
            "prefect.state-message": state.message,
            "prefect.state-name": state.name,
            "prefect.state-timestamp": occurred,
            "prefect.state-type": state.type,
            "prefect.orchestration": "client",
        },
        "related": [{_RESOURCE_ID: f"prefect.flow-run.{flow_run_id}", _ROLE: "flow-run"}],
        "payload": {
            "intended": {"from": None, "to": state.type},
            "initial_state": None,
            "validated_state": {
                "type": state.type,
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


def log_entry(flow_run_id: UUID, task_run_id: UUID | None, level: int, text: str, time: float) -> JsonObject:
    """An entry for `POST /logs/`. PostgreSQL stores no NUL."""
    return {
        "name": "prefect.flow_runs" if task_run_id is None else "prefect.task_runs",
        "level": level,
        "message": text.replace("\x00", "\ufffd"),
        "timestamp": isoformat(time),
        "flow_run_id": str(flow_run_id),
        "task_run_id": None if task_run_id is None else str(task_run_id),
    }


def isoformat(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat()
