"""Every rule job of a job as Prefect has it now, read whole, and what is made of it for many.

Reading costs one request for each 200 rule jobs, so what is made of a reading (a graph, a
crate) is shared: who asks while it is made waits for the same one, and it answers for a
moment, longer the longer it took, and longest when nothing of it can change any more.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient

from api.prefect.retries import patience
from api.prefect.rows import RULE_JOB_ROWS, RuleJobRow
from api.web.queries import MAX_LIMIT

FRESH_SECONDS = 1.0
FINAL_SECONDS = 300.0
MOST_KEPT = 100
_REST = 4
"""For every second of making, so many without: a picture on a wall must not keep Prefect busy."""

Made = TypeVar("Made")


async def rule_job_rows(
    client: PrefectClient, job_id: UUID, patience_seconds: float
) -> AsyncGenerator[RuleJobRow, None]:
    """All there are, page by page, each once. Raises `PrefectUnavailable`.

    What comes in meanwhile pushes rows down, never up, so none is missed (`ID_DESC` is the one
    total order that Prefect offers).
    """
    seen: set[UUID] = set()
    offset = 0
    while True:
        body = {
            "task_runs": {"flow_run_id": {"any_": [str(job_id)]}},
            "sort": "ID_DESC",
            "limit": MAX_LIMIT,
            "offset": offset,
        }
        async with patience(patience_seconds):
            response = await client.request("POST", "/task_runs/filter", json=body)
        page = RULE_JOB_ROWS.validate_json(response.content)
        for row in page:
            if row.id not in seen:
                seen.add(row.id)
                yield row
        if len(page) < MAX_LIMIT:
            return
        offset += len(page)


@dataclass(slots=True)
class _Entry(Generic[Made]):
    making: "asyncio.Task[Made]"
    expires: float = float("inf")


class Shared(Generic[Made]):
    """Makes what many ask for once, and keeps it for a while."""

    def __init__(self, is_final: Callable[[Made], bool]) -> None:
        self._is_final = is_final
        self._entries: OrderedDict[Hashable, _Entry[Made]] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], Awaitable[Made]]) -> Made:
        """What `make` gave for this key lately. Raises what `make` raises, to all who wait for it."""
        entry = self._entries.get(key)
        if entry is None or time.monotonic() >= entry.expires:
            entry = self._entries[key] = _Entry(asyncio.create_task(self._make(key, make)))
            while len(self._entries) > MOST_KEPT:
                self._entries.popitem(last=False)
        return await asyncio.shield(entry.making)

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[Made]]) -> Made:
        begun = time.monotonic()
        lifetime = 0.0
        try:
            made = await make()
            took = time.monotonic() - begun
            lifetime = FINAL_SECONDS if self._is_final(made) else max(FRESH_SECONDS, _REST * took)
            return made
        finally:
            entry = self._entries.get(key)
            if entry is not None and entry.making is asyncio.current_task():
                entry.expires = time.monotonic() + lifetime
