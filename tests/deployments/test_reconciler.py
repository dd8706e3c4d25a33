"""A look takes each job once, whatever moves while Prefect's pages are turned."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from deployments import reconciler
from deployments.reconciler import Reconciler
from deployments.verdicts import GracePeriods, Task

pytestmark = pytest.mark.anyio

LONG_AGO = datetime.now(UTC) - timedelta(hours=1)
ARN = "arn:aws:ecs:eu-central-1:1:task/cluster/"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Prefect:
    """Runs, newest first; a job that a worker takes meanwhile comes before them, and pushes the rest on."""

    def __init__(self, runs: int) -> None:
        self.runs = [self._running() for _ in range(runs)]

    async def read_flow_runs(self, *, offset: int, limit: int, **filters: Any) -> Sequence[FlowRun]:
        if StateType.CRASHED in filters["flow_run_filter"].state.type.any_:
            return []
        page = self.runs[offset : offset + limit]
        self.runs.insert(0, self._running())
        return page

    async def read_workers_for_work_pool(self, _: str) -> Sequence[Any]:
        return []

    def _running(self) -> FlowRun:
        state: State[None] = State(type=StateType.RUNNING, timestamp=LONG_AGO)
        run_id = uuid4()
        return FlowRun(
            id=run_id,
            flow_id=UUID(int=1),
            state=state,
            state_type=state.type,
            infrastructure_pid=f"cluster::{ARN}{run_id}",
        )


class EcsTasks:
    """Every job has a task that lives."""

    def has(self, arn: str) -> bool:
        return True

    def is_elsewhere(self, arn: str) -> bool:
        return False

    def read(self, also: Collection[str]) -> Sequence[Task]:
        return [
            Task(arn=arn, flow_run_id=UUID(arn.removeprefix(ARN)), created_at=LONG_AGO) for arn in set(also)
        ]


async def test_a_job_that_is_read_twice_is_not_taken_for_one_without_its_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconciler, "_PAGE", 2)
    client: Any = Prefect(runs=3)
    tasks: Any = EcsTasks()

    cases = await Reconciler(client, tasks, GracePeriods(*[timedelta(seconds=1)] * 4)).reconcile()

    assert cases == []
