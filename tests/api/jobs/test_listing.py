"""Listings of jobs: exact filters, and pages that neither repeat nor miss a job."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.states import Scheduled

from tests.api.support import Json, Worker, get, pages, submit, the_problem, walk

pytestmark = pytest.mark.anyio


@pytest.fixture
def here() -> str:
    """A tag that only the jobs of one test have."""
    return uuid4().hex


async def submit_many(api: httpx.AsyncClient, count: int, here: str) -> list[UUID]:
    """Submits some jobs, one after the other."""
    return [await submit(api, tags={"here": here}) for _ in range(count)]


async def schedule(prefect: PrefectClient, count: int, here: str, at: datetime) -> None:
    """Makes jobs in Prefect itself, all for the same time."""
    deployment = await prefect.read_deployment_by_name("snakemake-job/default")
    async with anyio.create_task_group() as creating:
        for _ in range(count):
            state: State[None] = Scheduled(scheduled_time=at)
            create = partial(prefect.create_flow_run_from_deployment, state=state, tags=[f"here:{here}"])
            creating.start_soon(create, deployment.id)


def ids(jobs: Sequence[Json]) -> list[UUID]:
    return [UUID(job["id"]) for job in jobs]


class TestFilters:
    async def test_by_status_are_exact(self, api: httpx.AsyncClient, worker: Worker, here: str) -> None:
        jobs = await submit_many(api, len(StateType), here)
        for job_id, state_type in zip(jobs, StateType, strict=True):
            if state_type is not StateType.SCHEDULED:
                await worker.bring_to(job_id, state_type)
        of = dict(zip(StateType, jobs, strict=True))

        async def found(status: str | list[str]) -> set[UUID]:
            page = await get(api, "/jobs", tag=f"here:{here}", status=status)
            return set(ids(page["items"]))

        assert await found("pending") == {of[StateType.SCHEDULED], of[StateType.PENDING]}
        assert await found("failed") == {of[StateType.FAILED], of[StateType.CRASHED]}
        assert await found("running") == {of[StateType.RUNNING]}
        assert await found("cancelling,cancelled") == {of[StateType.CANCELLING], of[StateType.CANCELLED]}
        assert await found(["paused", "completed,running"]) == {
            of[StateType.PAUSED],
            of[StateType.COMPLETED],
            of[StateType.RUNNING],
        }

    async def test_by_group(self, api: httpx.AsyncClient, here: str) -> None:
        await submit(api, tags={"here": here})
        large = await submit(api, tags={"here": here}, group="large")

        assert ids(await walk(api, "/jobs", tag=f"here:{here}", group="large")) == [large]

    async def test_by_tags_of_which_all_must_match(self, api: httpx.AsyncClient, here: str) -> None:
        both = await submit(api, tags={"here": here, "a": "b:c"})
        await submit(api, tags={"here": here, "a": "b"})

        assert ids(await walk(api, "/jobs", tag=[f"here:{here}", "a:b:c"])) == [both]

    async def test_by_name_take_the_whole_name(self, api: httpx.AsyncClient, here: str) -> None:
        named = await submit(api, name=f"{here}-%")
        await submit(api, name=f"{here}-%x")

        assert ids(await walk(api, "/jobs", name=f"{here}-%")) == [named]


class TestPages:
    async def test_have_the_newest_first_and_end_without_a_cursor(
        self, api: httpx.AsyncClient, here: str
    ) -> None:
        jobs = await submit_many(api, 6, here)

        walked = [ids(page) async for page in pages(api, "/jobs", tag=f"here:{here}", limit=2)]

        newest_first = jobs[::-1]
        assert walked == [newest_first[:2], newest_first[2:4], newest_first[4:]]

    async def test_are_whole_when_many_jobs_have_the_same_time(
        self, api: httpx.AsyncClient, prefect: PrefectClient, here: str
    ) -> None:
        await schedule(prefect, 25, here, datetime(2024, 2, 29, 12, tzinfo=UTC))
        newer = await submit_many(api, 3, here)

        for limit in (1, 7, 28):
            walked = ids(await walk(api, "/jobs", tag=f"here:{here}", limit=limit))
            assert walked[:3] == newer[::-1]
            assert len(walked) == len(set(walked)) == 28

    async def test_neither_repeat_nor_miss_a_job_while_others_come_in(
        self, api: httpx.AsyncClient, here: str
    ) -> None:
        old = await submit_many(api, 12, here)
        async with anyio.create_task_group() as coming_in:
            for _ in range(4):
                coming_in.start_soon(submit_many, api, 5, here)
            walks = [ids(await walk(api, "/jobs", tag=f"here:{here}", limit=3)) for _ in range(3)]

        for walked in walks:
            assert len(walked) == len(set(walked))
            assert [job_id for job_id in walked if job_id in old] == old[::-1]
        assert len(await walk(api, "/jobs", tag=f"here:{here}", limit=200)) == 32


class TestACursor:
    async def test_holds_on_every_replica(self, api: httpx.AsyncClient, service_url: str, here: str) -> None:
        jobs = await submit_many(api, 2, here)
        first = await get(api, "/jobs", tag=f"here:{here}", limit=1)

        async with httpx.AsyncClient(base_url=service_url) as another:
            second = await get(another, "/jobs", tag=f"here:{here}", limit=1, cursor=first["next_cursor"])

        assert ids(first["items"] + second["items"]) == jobs[::-1]
        assert second["next_cursor"] is None

    async def test_is_refused_with_other_filters(self, api: httpx.AsyncClient, here: str) -> None:
        await submit_many(api, 2, here)
        cursor = (await get(api, "/jobs", tag=f"here:{here}", limit=1))["next_cursor"]

        response = await api.get("/jobs", params={"cursor": cursor, "tag": "here:elsewhere"})

        assert "other filters" in the_problem(response, 400)["detail"]

    @pytest.mark.parametrize("cursor", ["", "x", "e30", "%%%", "ünïcödé", "A" * 50_000, "bnVsbA"])
    async def test_that_is_none_of_ours_is_refused(self, api: httpx.AsyncClient, cursor: str) -> None:
        the_problem(await api.get("/jobs", params={"cursor": cursor}), 400)
