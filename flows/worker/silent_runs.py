"""Ends attached runs whose Snakemake is gone.

No worker runs them, and their processes are on other machines. Each gives a sign of life by updating its
flow run (`flows/attach`). Times of other clocks are not compared: a run is silent when it has not changed
for as long as this process has looked at it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterWorkQueueName,
)
from prefect.client.schemas.objects import FlowRun, StateType

from flows.contract.spec import FLOW_NAME, Label
from flows.worker.settling import settle

SILENCE_SECONDS = 180.0
"""Six times as long as the pause between two signs of life."""
_LOOK_SECONDS = 30.0
_LONGEST_GAP_SECONDS = 15.0
_PAGE = 200
_ACTIVE = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
"""Scheduled, too: by a retry in Prefect's UI, which no worker will run."""
_GONE = "Snakemake gives no sign of life: its process has ended, or its machine can't reach Prefect."


@dataclass
class Silence:
    """How long each run has been silent. Pure."""

    seconds: float
    """How long a run may be silent."""
    _seen: dict[UUID, tuple[datetime | None, float]] = field(default_factory=dict)
    _looked_at: float = 0.0

    def broken_by_nobody(self, updated: Mapping[UUID, datetime | None], now: float) -> list[UUID]:
        """The runs that have been silent for too long. `updated` is when Prefect last updated each run."""
        if now - self._looked_at > max(self.seconds / 2, _LONGEST_GAP_SECONDS):
            self._seen.clear()  # nobody has looked meanwhile, maybe because Prefect was away
        self._looked_at = now
        self._seen = {
            run: known if (known := self._seen.get(run)) and known[0] == at else (at, now)
            for run, at in updated.items()
        }
        return [run for run, (_, since) in self._seen.items() if now - since >= self.seconds]


class SilentRuns:
    """Looks every now and then, however often it is asked to."""

    def __init__(self, seconds: float) -> None:
        self._silence = Silence(seconds)
        self._pause = min(_LOOK_SECONDS, seconds / 4)
        self._next_look = 0.0

    async def settle(self, client: PrefectClient) -> None:
        """End the runs that have been silent for too long. Raises `httpx.HTTPError`."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + self._pause
        runs = {run.id: run.updated for run in await _attached_runs(client)}
        for flow_run_id in self._silence.broken_by_nobody(runs, time.monotonic()):
            await settle(client, flow_run_id, _GONE)


async def _attached_runs(client: PrefectClient) -> list[FlowRun]:
    """Those that have not ended. They are in no work queue."""
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW_NAME])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_ACTIVE)),
                work_queue_name=FlowRunFilterWorkQueueName(is_null_=True),
            ),
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return [run for run in found if Label.ATTACHED in run.labels]
