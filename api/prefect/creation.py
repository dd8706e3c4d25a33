"""Creates flow runs. Those that are wanted while others are being made are made together.

Prefect's server needs about half as much time for each of them. Nobody waits for company: the first goes
alone, at once. What Prefect answers about many is no proof: where its database refuses one, none is made,
and those before it are still called created. So they are read back, and each that is missing is made alone,
with its own error.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType

from api.prefect.rows import FlowRunRow

MOST_TOGETHER = 20
"""Prefect takes 100. With fewer, the first of them waits less."""

Read = Callable[[Sequence[UUID]], Awaitable[Sequence[FlowRunRow]]]
Body = Mapping[str, object]

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Wanted:
    body: Body
    answer: asyncio.Future[FlowRunRow] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def resolve(self, row: FlowRunRow) -> None:
        if not self.answer.done():
            self.answer.set_result(row)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Creation:
    """The flow runs that this process wants of each deployment."""

    def __init__(self, client: PrefectClient, read: Read, timeout_seconds: float) -> None:
        """`read` returns those of the flow runs that exist; `timeout_seconds` bounds one request of many."""
        self._client = client
        self._read = read
        self._timeout_seconds = timeout_seconds
        self._waiting: dict[UUID, list[_Wanted]] = {}
        self._sending: dict[UUID, asyncio.Task[None]] = {}

    async def create(self, deployment_id: UUID, body: Body) -> FlowRunRow:
        """A new scheduled flow run, or the one that was made with the same idempotency key.

        Raises `httpx.HTTPStatusError` and `httpx.TransportError`. Whoever gives up waiting does not know
        whether it is made.
        """
        wanted = _Wanted(_without_nulls(body))
        self._waiting.setdefault(deployment_id, []).append(wanted)
        if deployment_id not in self._sending:
            self._sending[deployment_id] = asyncio.create_task(self._send(deployment_id))
        return await wanted.answer

    async def _send(self, deployment_id: UUID) -> None:
        """Until nobody waits."""
        try:
            while waiting := self._waiting.pop(deployment_id, None):
                batch, rest = waiting[:MOST_TOGETHER], waiting[MOST_TOGETHER:]
                if rest:
                    self._waiting[deployment_id] = rest
                await self._make(deployment_id, [each for each in batch if not each.answer.done()])
        finally:
            del self._sending[deployment_id]

    async def _make(self, deployment_id: UUID, batch: Sequence[_Wanted]) -> None:
        if len(batch) > 1:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._make_together(deployment_id, batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must get an answer
                _log.info("Prefect did not make %d flow runs together (%r).", len(batch), error)
        left = [each for each in batch if not each.answer.done()]
        await asyncio.gather(*(self._make_alone(deployment_id, each) for each in left))

    async def _make_alone(self, deployment_id: UUID, wanted: _Wanted) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._client.request(
                    "POST",
                    "/deployments/{id}/create_flow_run",
                    path_params={"id": deployment_id},
                    json=dict(wanted.body),
                )
            wanted.resolve(FlowRunRow.model_validate_json(response.content))
        except Exception as error:  # noqa: BLE001 - it is raised where the flow run is wanted
            wanted.fail(error)

    async def _make_together(self, deployment_id: UUID, batch: Sequence[_Wanted]) -> None:
        """Answers those that exist afterwards."""
        response = await self._client.request(
            "POST",
            "/deployments/{id}/create_flow_run/bulk",  # type: ignore[arg-type]  # its list of paths lacks it
            path_params={"id": deployment_id},
            json=[dict(each.body) for each in batch],
        )
        results: list[dict[str, Any]] = response.json()["results"]
        ids = [UUID(each["flow_run_id"]) if each["flow_run_id"] else None for each in results]
        rows = {row.id: row for row in await self._read([each for each in ids if each is not None])}
        for wanted, flow_run_id in zip(batch, ids, strict=True):
            if flow_run_id in rows:
                wanted.resolve(rows[flow_run_id])


def _without_nulls(body: Body) -> Body:
    return {name: value for name, value in body.items() if value is not None} | {
        "state": {"type": StateType.SCHEDULED}
    }
