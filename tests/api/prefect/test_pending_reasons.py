"""A client that asks for a job again may wait for news, and need not read what it knows."""

import anyio
import httpx
import pytest
from prefect.client.schemas.objects import StateType

from flows.contract.spec import Label
from tests.api.support import Worker, get, submit, the_problem

pytestmark = pytest.mark.anyio


async def test_a_job_that_is_as_the_client_knows_it_is_not_sent_again(
    api: httpx.AsyncClient, worker: Worker
) -> None:
    path = f"/jobs/{await submit(api)}"
    first = await api.get(path)
    etag = first.headers["etag"]

    same = await api.get(path, headers={"If-None-Match": f'"other", W/{etag}'})
    await worker.bring_to(first.json()["id"], StateType.COMPLETED)
    await anyio.sleep(0.25)
    changed = await api.get(path, headers={"If-None-Match": etag})

    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag
    assert changed.json()["status"] == "completed"


@pytest.mark.parametrize("knows", ["what it is now", "what it was"])
async def test_waiting_ends_with_the_change(api: httpx.AsyncClient, worker: Worker, knows: str) -> None:
    job_id = await submit(api)
    etag = (await api.get(f"/jobs/{job_id}")).headers["etag"]
    headers = {"If-None-Match": etag} if knows == "what it was" else {}
    answers: list[httpx.Response] = []

    async def wait() -> None:
        answers.append(await api.get(f"/jobs/{job_id}", params={"wait": 30}, headers=headers))

    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.5)
            assert not answers
            await worker.label(job_id, {Label.PROGRESS_DONE: 1, Label.PROGRESS_TOTAL: 2})

    assert answers[0].json()["progress"] == {"done": 1, "total": 2}


async def test_waiting_ends_when_its_time_is_over(api: httpx.AsyncClient) -> None:
    path = f"/jobs/{await submit(api)}"
    before = await api.get(path)

    after = await api.get(path, params={"wait": 0.6})
    unchanged = await api.get(path, params={"wait": 0.6}, headers={"If-None-Match": before.headers["etag"]})

    assert after.json() == before.json()
    assert unchanged.status_code == 304


async def test_nobody_waits_for_a_job_that_has_ended(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(api)
    await worker.bring_to(job_id, StateType.COMPLETED)

    with anyio.fail_after(10):
        assert (await get(api, f"/jobs/{job_id}", wait=60))["status"] == "completed"


@pytest.mark.parametrize("wait", ["-1", "61", "long", "nan"])
async def test_a_wait_has_bounds(api: httpx.AsyncClient, wait: str) -> None:
    response = await api.get(f"/jobs/{await submit(api)}", params={"wait": wait})

    assert the_problem(response, 422)["errors"][0]["pointer"] == "?wait"
