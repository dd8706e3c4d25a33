"""Many clients at once, on a real socket: every submission becomes one job, and reads go on meanwhile."""

from uuid import UUID, uuid4

import anyio
import httpx
import pytest

from tests.api.support import get, pages, submit, walk

pytestmark = pytest.mark.anyio

CLIENTS = 16
SUBMISSIONS = 200


async def test_two_hundred_submissions_of_sixteen_clients_make_two_hundred_jobs(service_url: str) -> None:
    here = uuid4().hex
    submitted: list[UUID] = []

    async def submit_share(share: range) -> None:
        async with httpx.AsyncClient(base_url=service_url, timeout=60) as client:
            for number in share:
                submitted.append(await submit(client, name=f"{here}-{number}", tags={"here": here}))

    async with anyio.create_task_group() as clients:
        for first in range(CLIENTS):
            clients.start_soon(submit_share, range(first, SUBMISSIONS, CLIENTS))

    async with httpx.AsyncClient(base_url=service_url) as client:
        jobs = await walk(client, "/jobs", tag=f"here:{here}", limit=90)
        await submit(client, tags={"here": here})
        largest = [len(page) async for page in pages(client, "/jobs", tag=f"here:{here}", limit=200)]
    assert {UUID(job["id"]) for job in jobs} == set(submitted)
    assert len(jobs) == len(submitted) == SUBMISSIONS
    assert {job["name"] for job in jobs} == {f"{here}-{number}" for number in range(SUBMISSIONS)}
    assert largest == [200, 1]


async def test_reads_go_on_while_many_submit(service_url: str) -> None:
    async with httpx.AsyncClient(base_url=service_url, timeout=60) as client:
        job_id = await submit(client)
        submitted = 0

        async def submit_another() -> None:
            nonlocal submitted
            await submit(client)
            submitted += 1

        async with anyio.create_task_group() as flood:
            for _ in range(60):
                flood.start_soon(submit_another)
            while not submitted:
                await anyio.sleep(0.01)
            await get(client, f"/jobs/{job_id}")
            before_the_answer = submitted

    assert before_the_answer < 45, "the read waited for the submits"
