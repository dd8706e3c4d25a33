"""The columns of flow runs and task runs that the facade needs.

Prefect's client builds a whole `FlowRun` from every row, which costs more than the request.
"""

from datetime import datetime
from uuid import UUID

from prefect.client.schemas.objects import StateType
from pydantic import BaseModel, ConfigDict, TypeAdapter


class StateRow(BaseModel):
    """The current state."""

    model_config = ConfigDict(frozen=True)

    message: str | None = None


class FlowRunRow(BaseModel):
    """A flow run as `POST /flow_runs/filter` returns it; other columns are ignored."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    name: str
    run_count: int = 0
    deployment_id: UUID | None = None
    created: datetime | None = None
    updated: datetime | None = None
    expected_start_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    state_type: StateType | None = None
    state: StateRow | None = None
    parameters: dict[str, object] = {}
    labels: dict[str, bool | int | float | str] = {}
    tags: tuple[str, ...] = ()


FLOW_RUN_ROWS = TypeAdapter(list[FlowRunRow])


class TaskInputRow(BaseModel):
    """Something that a task run waits for."""

    model_config = ConfigDict(frozen=True)

    input_type: str
    id: UUID | None = None


class RuleJobRow(BaseModel):
    """A task run as `POST /task_runs/filter` returns it; other columns are ignored."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    name: str
    task_key: str = ""
    run_count: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    state_type: StateType | None = None
    state_name: str | None = None
    state: StateRow | None = None
    task_inputs: dict[str, tuple[TaskInputRow, ...]] = {}
    labels: dict[str, bool | int | float | str] = {}

    @property
    def upstream(self) -> list[UUID]:
        """The task runs that it depends on."""
        return [item.id for items in self.task_inputs.values() for item in items if item.id is not None]

    @property
    def message(self) -> str:
        return (self.state.message if self.state else None) or ""

    @property
    def seconds(self) -> float | None:
        """The duration of its last attempt; None before it has ended, and if it never ran."""
        if self.start_time is None or self.end_time is None or not self.run_count:
            return None
        return (self.end_time - self.start_time).total_seconds()


RULE_JOB_ROWS = TypeAdapter(list[RuleJobRow])
