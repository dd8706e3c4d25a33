"""The columns of a flow run that a job is made of.

Prefect's client builds its whole `FlowRun` of every row, which costs more than asking for it.
"""

from datetime import datetime
from uuid import UUID

from prefect.client.schemas.objects import StateType
from pydantic import BaseModel, ConfigDict, TypeAdapter


class StateRow(BaseModel):
    """What the newest state says."""

    model_config = ConfigDict(frozen=True)

    message: str | None = None


class FlowRunRow(BaseModel):
    """A flow run, as `POST /flow_runs/filter` gives it; all other columns are passed over."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    name: str
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
