"""How many flow runs or task runs there are in each state, counted by Prefect in one read.

Read one state after the other, a job that moves meanwhile would be counted twice, or never.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from pydantic import BaseModel, ConfigDict, TypeAdapter

_ALL_TIME = timedelta(days=3650)
"""Before and after now: jobs may be scheduled for a time to come."""


class StateCount(BaseModel):
    """How many are in one state."""

    model_config = ConfigDict(frozen=True)

    state_type: StateType | None
    state_name: str | None
    count_runs: int


class _Interval(BaseModel):
    model_config = ConfigDict(frozen=True)

    states: tuple[StateCount, ...]


_HISTORY = TypeAdapter(list[_Interval])


async def count_by_state(
    client: PrefectClient,
    path: Literal["/flow_runs/history", "/task_runs/history"],
    flow_runs: FlowRunFilter,
) -> Sequence[StateCount]:
    """Of these flow runs, or of their task runs: a history of one interval, which holds everything."""
    now = datetime.now(UTC)
    body = {
        "history_start": (now - _ALL_TIME).isoformat(),
        "history_end": (now + _ALL_TIME).isoformat(),
        "history_interval_seconds": (2 * _ALL_TIME).total_seconds(),
        "flow_runs": flow_runs.model_dump(mode="json", exclude_unset=True),
    }
    response = await client.request("POST", path, json=body)
    return [state for interval in _HISTORY.validate_json(response.content) for state in interval.states]
