"""The responses of GA4GH WES 1.1.0, with the names of its specification."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, PlainSerializer


class State(StrEnum):
    """The state of a run."""

    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    INITIALIZING = "INITIALIZING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETE = "COMPLETE"
    EXECUTOR_ERROR = "EXECUTOR_ERROR"
    SYSTEM_ERROR = "SYSTEM_ERROR"
    CANCELED = "CANCELED"
    CANCELING = "CANCELING"
    PREEMPTED = "PREEMPTED"


def _in_seconds(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Moment = Annotated[datetime, PlainSerializer(_in_seconds)]


class RunId(BaseModel):
    run_id: str


class RunStatus(RunId):
    state: State


class RunSummary(RunStatus):
    start_time: Moment | None
    end_time: Moment | None
    tags: dict[str, str]


class RunListResponse(BaseModel):
    runs: list[RunSummary]
    next_page_token: str
    """Empty on the last page."""


class RunRequest(BaseModel):
    workflow_params: dict[str, Any]
    workflow_type: str
    workflow_type_version: str
    tags: dict[str, str]
    workflow_engine_parameters: dict[str, str]
    workflow_engine: str | None
    workflow_engine_version: str | None
    workflow_url: str


class Log(BaseModel):
    name: str
    cmd: list[str] | None
    start_time: Moment | None
    end_time: Moment | None
    stdout: str | None
    stderr: str | None
    exit_code: int | None
    system_logs: list[str]


class TaskLog(Log):
    id: str


class TaskListResponse(BaseModel):
    task_logs: list[TaskLog]
    next_page_token: str


class RunLog(RunStatus):
    request: RunRequest
    run_log: Log
    task_logs_url: str
    outputs: dict[str, str]
    """The address of each output, by path."""
