"""Many clients that ask for the same jobs: one read, answers that are new, and never a step back."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from api.prefect.job_cache import FRESH_SECONDS, MOST_JOBS, JobCache
from api.web.problems import PrefectUnavailable
from api.web.schemas import Job, JobLinks, Progress
from api.web.statuses import JobStatus

pytestmark = pytest.mark.anyio

READ_SECONDS = 0.02


class Prefect:
    """What the jobs are in truth, and how often it was asked for them."""

    def __init__(self) -> None:
        self.done: dict[UUID, int] = {}
        self.status = JobStatus.RUNNING
        self.reads: list[frozenset[UUID]] = []
        self.is_away = False

    def job(self) -> UUID:
        job_id = uuid4()
        self.done[job_id] = 0
        return job_id

    async def read(self, job_ids: frozenset[UUID]) -> Mapping[UUID, Job]:
        self.reads.append(job_ids)
        if self.is_away:
            raise PrefectUnavailable("away", "wait")
        found = {job_id: self._job(job_id) for job_id in job_ids & self.done.keys()}
        await asyncio.sleep(READ_SECONDS)
        return found

    def _job(self, job_id: UUID) -> Job:
        now = datetime.now(UTC)
        return Job(
            id=job_id,
            name="job",
            group="default",
            status=self.status,
            engine="mock",
            commit=None,
            created_at=now,
            updated_at=now,
            started_at=now,
            finished_at=None,
            progress=Progress(done=self.done[job_id], total=100),
            error=None,
            tags={},
            links=JobLinks.of(job_id, "http://127.0.0.1:4200"),
        )


async def test_a_hundred_clients_of_twenty_jobs_cost_one_read_per_moment() -> None:
    prefect = Prefect()
    cache = JobCache(prefect.read, 200)
    job_ids = [prefect.job() for _ in range(20)]
    began = time.monotonic()
    ends = began + 1.0

    async def poll(client: int) -> int:
        answers = 0
        while time.monotonic() < ends:
            assert await cache.get(job_ids[(client + answers) % 20]) is not None
            answers += 1
            await asyncio.sleep(0.005)
        return answers

    answers = sum(await asyncio.gather(*(poll(client) for client in range(100))))

    assert answers > 1000
    assert len(prefect.reads) <= 2 + (time.monotonic() - began) / FRESH_SECONDS


async def test_an_answer_is_never_older_than_promised_and_never_goes_backwards() -> None:
    prefect = Prefect()
    cache = JobCache(prefect.read, 200)
    job_id = prefect.job()
    truth: list[tuple[float, int]] = [(time.monotonic(), 0)]
    ends = time.monotonic() + 1.0

    async def work() -> None:
        while time.monotonic() < ends:
            prefect.done[job_id] += 1
            truth.append((time.monotonic(), prefect.done[job_id]))
            await asyncio.sleep(0.01)

    async def poll() -> None:
        seen = 0
        while time.monotonic() < ends:
            asked = time.monotonic()
            job = await cache.get(job_id)
            assert job is not None
            assert job.progress.done >= seen, "went backwards"
            seen = job.progress.done
            true_then = max(done for at, done in truth if at <= asked - 0.25 or done == 0)
            assert seen >= true_then, "older than 250 ms"
            await asyncio.sleep(0.007)

    await asyncio.gather(work(), *(poll() for _ in range(5)))


async def test_a_final_job_is_not_read_again() -> None:
    prefect = Prefect()
    prefect.status = JobStatus.COMPLETED
    cache = JobCache(prefect.read, 200)
    job_id = prefect.job()

    for _ in range(3):
        assert await cache.get(job_id) is not None
        await asyncio.sleep(FRESH_SECONDS)

    assert len(prefect.reads) == 1


async def test_a_job_that_was_changed_is_read_again_at_once() -> None:
    prefect = Prefect()
    cache = JobCache(prefect.read, 200)
    job_id = prefect.job()
    await cache.get(job_id)
    prefect.status = JobStatus.CANCELLING

    cache.forget(job_id)

    job = await cache.get(job_id)
    assert job is not None
    assert job.status is JobStatus.CANCELLING


async def test_who_has_seen_a_list_is_not_told_older_news() -> None:
    prefect = Prefect()
    cache = JobCache(prefect.read, 200)
    job_id = prefect.job()
    await cache.get(job_id)
    prefect.done[job_id] = 1
    read_at = time.monotonic()
    listed = await prefect.read(frozenset([job_id]))

    cache.learn(listed.values(), read_at)

    job = await cache.get(job_id)
    assert job is not None
    assert job.progress.done == 1


async def test_a_read_that_began_before_a_list_does_not_answer_who_has_seen_it() -> None:
    prefect = Prefect()
    cache = JobCache(prefect.read, 200)
    job_id = prefect.job()
    await cache.get(job_id)
    await asyncio.sleep(FRESH_SECONDS)
    old = asyncio.create_task(cache.get(job_id))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the read has begun
    prefect.done[job_id] = 1
    read_at = time.monotonic()

    cache.learn((await prefect.read(frozenset([job_id]))).values(), read_at)
    await old

    job = await cache.get(job_id)
    assert job is not None
    assert job.progress.done == 1


async def test_everybody_who_waits_is_told_that_prefect_is_away_and_the_next_one_asks_again() -> None:
    prefect = Prefect()
    cache = JobCache(prefect.read, 200)
    job_id = prefect.job()
    prefect.is_away = True

    answers = await asyncio.gather(*(cache.get(job_id) for _ in range(5)), return_exceptions=True)

    assert all(isinstance(answer, PrefectUnavailable) for answer in answers)
    prefect.is_away = False
    assert await cache.get(job_id) is not None


async def test_whatever_a_read_fails_of_nobody_waits_for_ever() -> None:
    """Neither those who asked for it, nor who came while it was going on."""
    prefect = Prefect()
    first, second = prefect.job(), prefect.job()

    async def read_and_fail(job_ids: frozenset[UUID]) -> Mapping[UUID, Job]:
        found = await prefect.read(job_ids)
        if first in job_ids:
            raise ZeroDivisionError
        return found

    cache = JobCache(read_and_fail, 200)
    one = asyncio.create_task(cache.get(first))
    await asyncio.sleep(READ_SECONDS / 2)
    two = asyncio.create_task(cache.get(second))

    async with asyncio.timeout(5):
        with pytest.raises(ZeroDivisionError):
            await one
        assert await two is not None


async def test_an_unknown_job_is_none() -> None:
    assert await JobCache(Prefect().read, 200).get(uuid4()) is None


async def test_no_read_asks_for_more_than_prefect_gives_and_memory_is_bounded() -> None:
    prefect = Prefect()
    prefect.status = JobStatus.COMPLETED
    cache = JobCache(prefect.read, 200)
    job_ids = [prefect.job() for _ in range(MOST_JOBS + 100)]

    await asyncio.gather(*(cache.get(job_id) for job_id in job_ids))

    assert max(map(len, prefect.reads)) == 200
    assert len(cache._entries) == MOST_JOBS
