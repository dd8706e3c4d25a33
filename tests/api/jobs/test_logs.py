"""Logs of a job and of its rule jobs, oldest first."""

from uuid import UUID

import httpx
import pytest

from tests.api.support import RuleJobInState, Worker, get, submit, the_problem, walk

pytestmark = pytest.mark.anyio

NOW = 1_760_000_000.0


@pytest.fixture
async def job_id(api: httpx.AsyncClient) -> UUID:
    return await submit(api)


async def test_a_line_says_when_how_serious_and_of_which_rule_job(
    api: httpx.AsyncClient, worker: Worker, job_id: UUID
) -> None:
    task_id = RuleJobInState(1).task_id(job_id)
    await worker.record(job_id, [RuleJobInState(1)])
    await worker.log(job_id, [(NOW + 0.25, "planned")])
    await worker.log(job_id, [(NOW + 0.5, "mapped")], task_id)

    of_the_rule_job = {
        "timestamp": "2025-10-09T08:53:20.500000Z",
        "level": "INFO",
        "message": "mapped",
        "task_id": str(task_id),
    }
    assert await walk(api, f"/jobs/{job_id}/logs") == [
        {
            "timestamp": "2025-10-09T08:53:20.250000Z",
            "level": "INFO",
            "message": "planned",
            "task_id": None,
        },
        of_the_rule_job,
    ]
    assert await walk(api, f"/jobs/{job_id}/tasks/{task_id}/logs") == [of_the_rule_job]


@pytest.mark.parametrize(("limit", "ties"), [(3, 20), (50, 80), (200, 80)])
async def test_lines_of_the_same_time_come_in_the_order_in_which_they_were_written(
    api: httpx.AsyncClient, worker: Worker, job_id: UUID, limit: int, ties: int
) -> None:
    times = sorted([NOW, NOW + 3] * ties + [NOW + 1] * 3 + [NOW + 2 + index / 10 for index in range(30)])
    lines = [(time, str(number)) for number, time in enumerate(times)]
    half = ties // 2  # of those of the first time
    await worker.log(job_id, lines[:half])
    await worker.log(job_id, lines[half:])

    walked = await walk(api, f"/jobs/{job_id}/logs", limit=limit)

    assert [int(line["message"]) for line in walked] == list(range(len(lines)))


async def test_a_flood_of_lines_of_the_same_time_comes_to_an_end(
    api: httpx.AsyncClient, worker: Worker, job_id: UUID
) -> None:
    await worker.log(job_id, [(NOW, str(number)) for number in range(500)])

    walked = [line["message"] for line in await walk(api, f"/jobs/{job_id}/logs", limit=200)]

    assert len(walked) == len(set(walked)) > 200


async def test_a_cursor_of_the_job_is_none_of_its_rule_job(
    api: httpx.AsyncClient, worker: Worker, job_id: UUID
) -> None:
    await worker.record(job_id, [RuleJobInState(1)])
    await worker.log(job_id, [(NOW, "one"), (NOW, "two")])
    cursor = (await get(api, f"/jobs/{job_id}/logs", limit=1))["next_cursor"]

    path = f"/jobs/{job_id}/tasks/{RuleJobInState(1).task_id(job_id)}/logs"
    the_problem(await api.get(path, params={"cursor": cursor}), 400)
