"""Nobody takes all places."""

import anyio
import anyio.to_thread
import pytest

from api.web.fair_limits import FairLimit

pytestmark = pytest.mark.anyio


async def test_a_flood_of_one_name_leaves_places_for_another() -> None:
    limit = FairLimit(total=3, each=2)
    inside: list[str] = []
    release = anyio.Event()

    async def work(name: str) -> None:
        async with limit.place(name):
            inside.append(name)
            await release.wait()

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(work, "loud")
        await anyio.wait_all_tasks_blocked()
        assert inside == ["loud", "loud"]
        tasks.start_soon(work, "quiet")
        await anyio.wait_all_tasks_blocked()
        assert inside == ["loud", "loud", "quiet"]
        release.set()
    assert inside.count("loud") == 20


async def test_threads_wait_for_places_only_of_their_own() -> None:
    limit = FairLimit(total=1, each=1)
    results: list[int] = []

    async def work() -> None:
        results.append(await limit.in_thread("quiet", int, "7"))

    async with anyio.create_task_group() as tasks, limit.place("loud"):
        for _ in range(100):
            tasks.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        assert results == []
        assert await anyio.to_thread.run_sync(int) == 0
    assert results == [7] * 100
