"""Counts flow runs or task runs by state, in one request to Prefect.

With one request per state, a job that changes its state meanwhile would be counted twice, or not at all.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from pydantic import BaseModel, ConfigDict, TypeAdapter

_ALL_TIME = timedelta(days=3650)
"""Before and after now: jobs may be scheduled for the future."""


class StateCount(BaseModel):
    """How many runs are in a state."""

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
    """Counts these flow runs, or their task runs: a history with one interval, which contains everything."""
    now = datetime.now(UTC)
    body = {
        "history_start": (now - _ALL_TIME).isoformat(),
        "history_end": (now + _ALL_TIME).isoformat(),
        "history_interval_seconds": (2 * _ALL_TIME).total_seconds(),
        "flow_runs": flow_runs.model_dump(mode="json", exclude_unset=True),
    }
    response = await client.request("POST", path, json=body)
    return [state for interval in _HISTORY.validate_json(response.content) for state in interval.states]
