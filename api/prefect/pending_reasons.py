"""Why the pending jobs of a group wait: it is full or held, or no worker has a place for it."""

import contextlib
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType, WorkPoolStatus, WorkQueue
from prefect.exceptions import ObjectNotFound

from api.prefect.rows import FlowRunRow

_GRACE = timedelta(seconds=1)
_LIMITS_SECONDS = 5.0
_COUNT_SECONDS = 1.0
_WAITS = (StateType.SCHEDULED, StateType.PENDING)
_TAKES_A_SLOT = [StateType.PENDING.value, StateType.RUNNING.value, StateType.CANCELLING.value]


class PendingReasons:
    """Keeps what it has read of Prefect for a moment, for all jobs."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._queues: dict[UUID, WorkQueue | None] = {}
        self._queues_expire = 0.0
        self._reasons: dict[str, tuple[float, str | None]] = {}

    async def of(
        self, flow_runs: Iterable[FlowRunRow], groups: Mapping[UUID, str]
    ) -> Mapping[UUID, str | None]:
        """By deployment: of those `groups` that have pending jobs among `flow_runs`.

        A job that is just submitted is about to be taken by a worker, and to ask why it waits costs more
        requests than to run it.
        """
        latest = datetime.now(UTC) - _GRACE
        waiting = {
            run.deployment_id
            for run in flow_runs
            if run.state_type in _WAITS and (run.created is None or run.created < latest)
        }
        return {
            deployment_id: await self._reason(group, deployment_id)
            for deployment_id, group in groups.items()
            if deployment_id in waiting
        }

    async def _reason(self, group: str, deployment_id: UUID) -> str | None:
        expires, reason = self._reasons.get(group, (0.0, None))
        if time.monotonic() >= expires:
            reason = await self._read_reason(group, deployment_id)
            self._reasons[group] = (time.monotonic() + _COUNT_SECONDS, reason)
        return reason

    async def _read_reason(self, group: str, deployment_id: UUID) -> str | None:
        queue = await self._queue_of(deployment_id)
        if queue is None:
            return None
        if queue.is_paused or queue.concurrency_limit == 0:
            return f"The group '{group}' is on hold: the operator has paused it."
        if queue.concurrency_limit is not None:
            of_queue = {"work_pool_queues": {"id": {"any_": [str(queue.id)]}}}
            if await self._count_taken(of_queue) >= queue.concurrency_limit:
                most = _jobs(queue.concurrency_limit)
                return f"The group '{group}' is full: it runs at most {most} at once, in order."
        return await self._reason_of_pool(queue.work_pool_name)

    async def _reason_of_pool(self, name: str | None) -> str | None:
        """Why no worker takes a job of any group."""
        if name is None:
            return None
        pool = await self._client.read_work_pool(name)
        if pool.concurrency_limit is not None:
            of_pool = {"work_pools": {"name": {"any_": [name]}}}
            if await self._count_taken(of_pool) >= pool.concurrency_limit:
                return (
                    f"All places are taken: the workers run at most {_jobs(pool.concurrency_limit)} at once."
                )
        if pool.status is WorkPoolStatus.NOT_READY:
            return "No worker is online. Contact the operator if this lasts for more than a minute."
        return None

    async def _queue_of(self, deployment_id: UUID) -> WorkQueue | None:
        if time.monotonic() >= self._queues_expire:
            self._queues.clear()
            self._queues_expire = time.monotonic() + _LIMITS_SECONDS
        if deployment_id not in self._queues:
            self._queues[deployment_id] = None
            with contextlib.suppress(ObjectNotFound):  # the group was deleted while its jobs wait
                deployment = await self._client.read_deployment(deployment_id)
                if deployment.work_queue_id is not None:
                    queue = await self._client.read_work_queue(deployment.work_queue_id)
                    self._queues[deployment_id] = queue
        return self._queues[deployment_id]

    async def _count_taken(self, where: Mapping[str, object]) -> int:
        body = {"flow_runs": {"state": {"type": {"any_": _TAKES_A_SLOT}}}, **where}
        return int((await self._client.request("POST", "/flow_runs/count", json=body)).json())


def _jobs(number: int) -> str:
    return f"{number} {'job' if number == 1 else 'jobs'}"
