"""Draws the graph of a job once for all clients that request it at the same time.

Reading the rule jobs costs one request for each 200, so a drawing is shared: requests that arrive while
it is made wait for it. It is kept briefly, longer the longer it took, and longest when it is final.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio.to_thread

from api.insight.graphs import GraphOf
from api.insight.pictures import MOST_BOXES, Drawing, drawing_of
from api.prefect.rule_job_reads import RuleJobReads
from api.web.schemas import Job

FRESH_SECONDS = 1.0
FINAL_SECONDS = 300.0
MOST_KEPT = 100
_REST = 4
"""A drawing is kept this many times as long as it took, so that a dashboard does not keep Prefect busy."""

Made = TypeVar("Made")


class Drawings:
    """The drawings of all jobs."""

    def __init__(self, rule_jobs: RuleJobReads) -> None:
        self._rule_jobs = rule_jobs
        self._shared: Shared[Drawing] = Shared(lambda drawing: drawing.is_final)

    async def of(self, job: Job, kind: GraphOf) -> bytes:
        """The graph of the job as an SVG; its states are a second old at most.

        Raises `GraphTooLarge` and `PrefectUnavailable`.
        """
        # Another drawing for a job that is run again after its end.
        key = (job.id, kind, job.status, job.started_at)
        drawing = await self._shared.get(key, lambda: self._draw(job, kind))
        return drawing.svg

    async def _draw(self, job: Job, kind: GraphOf) -> Drawing:
        rows = await self._rule_jobs.rows(job.id, MOST_BOXES if kind is GraphOf.JOBS else None)
        return await anyio.to_thread.run_sync(drawing_of, job, kind, rows)


@dataclass(slots=True)
class _Entry(Generic[Made]):
    making: "asyncio.Task[Made]"
    expires: float = float("inf")


class Shared(Generic[Made]):
    """Makes something once for many requests, and keeps it for a while."""

    def __init__(self, is_final: Callable[[Made], bool]) -> None:
        self._is_final = is_final
        self._entries: OrderedDict[Hashable, _Entry[Made]] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], Awaitable[Made]]) -> Made:
        """The recent result of `make` for this key. All that wait for it get what `make` raises."""
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
