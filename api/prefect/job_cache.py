"""Caches jobs, so that many clients that poll the same jobs cost Prefect one read.

A requested job is read together with all others that were requested recently, in one bulk read at a
time. The result is valid for at most `FRESH_SECONDS`.

- A client gets a state that is at most `FRESH_SECONDS` old. Reads are sequential, so a job never goes
  back to an earlier state.
- Reading takes about a tenth of the time: the faster Prefect is, the more often it is read.
- A final job does not change, unless somebody runs it again in the Prefect UI. It is valid for
  `FINAL_SECONDS`.
- Memory is bounded by `MOST_JOBS`.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from api.web.schemas import Job
from api.web.statuses import FINAL_STATUSES

FRESH_SECONDS = 0.2
_LEAST_FRESH_SECONDS = 0.05
_REST = 10
"""A result is valid this many times as long as the read took."""
FINAL_SECONDS = 10.0
MOST_JOBS = 5_000
_HOT_SECONDS = 1.0
"""Open jobs that were requested within this time are included in each bulk read."""

Read = Callable[[frozenset[UUID]], Awaitable[Mapping[UUID, Job]]]


@dataclass(slots=True)
class _Entry:
    job: Job
    read_at: float
    expires: float
    asked_at: float

    @property
    def is_live(self) -> bool:
        return self.job.status not in FINAL_STATUSES


@dataclass
class _Batch:
    """Jobs that are read together, and the result for all that wait for it."""

    ids: set[UUID] = field(default_factory=set)
    begun: float = 0.0
    """When the read began."""
    answer: "asyncio.Future[Mapping[UUID, Job]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class JobCache:
    """Jobs by id, read in bulk and kept briefly."""

    def __init__(self, read: Read, most_at_once: int) -> None:
        """`read` returns those of the jobs that exist; it is called with at most `most_at_once` ids."""
        self._read = read
        self._most_at_once = most_at_once
        self._entries: OrderedDict[UUID, _Entry] = OrderedDict()
        self._gathering: _Batch | None = None
        self._being_read: _Batch | None = None
        self._reader: asyncio.Task[None] | None = None

    async def get(self, job_id: UUID) -> Job | None:
        """The job; none if it does not exist. Raises what the read raises."""
        now = time.monotonic()
        entry = self._entries.get(job_id)
        if entry is not None:
            entry.asked_at = now
            if now < entry.expires:
                return entry.job
        batch = self._being_read
        newest = now - FRESH_SECONDS if entry is None else max(entry.read_at, now - FRESH_SECONDS)
        if batch is None or job_id not in batch.ids or batch.begun < newest:
            batch = self._gathering = self._gathering or _Batch()
            batch.ids.add(job_id)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_batches())
        return (await asyncio.shield(batch.answer)).get(job_id)

    def learn(self, jobs: Iterable[Job], read_at: float) -> None:
        """Takes over jobs that a list read at `read_at`: its reader must not get older states later."""
        for job in jobs:
            if job.id in self._entries:
                self._keep(job.id, job, read_at, _LEAST_FRESH_SECONDS, was_asked=False)

    def forget(self, job_id: UUID) -> None:
        """Read the job again when it is requested next, because it was just changed."""
        self._entries.pop(job_id, None)
        if self._being_read is not None:
            self._being_read.ids.discard(job_id)

    async def _read_batches(self) -> None:
        while (batch := self._gathering) is not None:
            self._gathering = None
            self._being_read = batch
            try:
                batch.answer.set_result(await self._read_with_hot(batch))
            except Exception as error:  # noqa: BLE001 - every error goes to those that wait; the loop serves others
                batch.answer.set_exception(error)
            finally:
                batch.answer.cancel()  # if this task is being cancelled
                self._being_read = None

    async def _read_with_hot(self, batch: _Batch) -> Mapping[UUID, Job]:
        begun = batch.begun = time.monotonic()
        wanted = frozenset(batch.ids)
        batch.ids |= {
            job_id
            for job_id, entry in self._entries.items()
            if entry.is_live and begun - entry.asked_at < _HOT_SECONDS
        }
        ids = list(batch.ids)
        jobs: dict[UUID, Job] = {}
        for start in range(0, len(ids), self._most_at_once):
            jobs |= await self._read(frozenset(ids[start : start + self._most_at_once]))
        lasts = min(FRESH_SECONDS, max(_LEAST_FRESH_SECONDS, _REST * (time.monotonic() - begun)))
        for job_id in batch.ids:  # without those that were changed meanwhile
            self._keep(job_id, jobs.get(job_id), begun, lasts, was_asked=job_id in wanted)
        return jobs

    def _keep(self, job_id: UUID, job: Job | None, begun: float, lasts: float, *, was_asked: bool) -> None:
        before = self._entries.get(job_id)
        if before is not None and before.read_at > begun:
            return
        self._entries.pop(job_id, None)
        if job is None:
            return
        asked_at = begun if was_asked or before is None else before.asked_at
        lifetime = FINAL_SECONDS if job.status in FINAL_STATUSES else lasts
        self._entries[job_id] = _Entry(job, begun, begun + lifetime, asked_at)
        while len(self._entries) > MOST_JOBS:
            self._entries.popitem(last=False)
