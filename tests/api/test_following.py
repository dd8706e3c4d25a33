"""Who follows a job is told everything that happens to it, also after having been away."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import anyio
import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType

from api.events.changes import Changes
from api.events.feed import Moment
from api.events.following import Following
from api.jobs import Jobs
from api.settings import Settings
from flows.spec import Label
from flows.storage import open_storage
from tests.api.support import Json, RuleJobInState, Worker, get, submit, the_problem

pytestmark = pytest.mark.anyio


class Stream:
    """Server-sent events, read as the standard's parser does it."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.last_event_id = ""

    async def __aiter__(self) -> AsyncIterator[tuple[str, Json]]:
        kind, data = "message", ""
        async for line in self._lines:
            field, _, value = line.partition(": ")
            match field:
                case "event":
                    kind = value
                case "data":
                    data += value
                case "id":
                    self.last_event_id = value
                case "" if not line:
                    if data:
                        yield kind, json.loads(data)
                    kind, data = "message", ""


@asynccontextmanager
async def following(url: str, path: str, last_event_id: str = "") -> AsyncIterator[Stream]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    async with (
        httpx.AsyncClient(base_url=url, timeout=40) as client,
        client.stream("GET", path, headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)


async def until(stream: Stream, kind: str, **fields: object) -> list[tuple[str, Json]]:
    """What comes up to the event whose fields are these."""
    events = []
    async for event, data in stream:
        events.append((event, data))
        assert len(events) < 20_000, f"told without end: {events[-3:]}"
        if event == kind and all(data[name] == value for name, value in fields.items()):
            return events
    raise AssertionError(f"the stream ended without {kind} {fields}; its last events: {events[-5:]}")


async def test_a_follower_is_told_status_progress_rule_jobs_and_log_until_the_end(
    service_url: str, api: httpx.AsyncClient, worker: Worker
) -> None:
    job_id = await submit(api)
    async with following(service_url, f"/jobs/{job_id}/events") as stream:
        await until(stream, "job", status="pending")
        await worker.bring_to(job_id, StateType.RUNNING)
        await until(stream, "job", status="running")
        await worker.record(job_id, [RuleJobInState(1, StateType.RUNNING), RuleJobInState(2)])
        await worker.log(job_id, [(1_760_000_000.0, "a line of the log")])
        await worker.label(job_id, {Label.PROGRESS_DONE: 1, Label.PROGRESS_TOTAL: 2})
        told = await until(stream, "job", progress={"done": 1, "total": 2})
        if not any(kind == "log" for kind, _ in told):
            told += await until(stream, "log", message="a line of the log")
        await worker.record(job_id, [RuleJobInState(1, timestamp=1_760_000_100.0)])
        await worker.bring_to(job_id, StateType.COMPLETED)
        told += [event async for event in stream]

    tasks = [(task["name"], task["status"]) for kind, task in told if kind == "task"]
    assert tasks == [("map[n=1]", "running"), ("map[n=2]", "completed"), ("map[n=1]", "completed")] or (
        tasks == [("map[n=2]", "completed"), ("map[n=1]", "running"), ("map[n=1]", "completed")]
    )
    assert told[-1] == ("job", await get(api, f"/jobs/{job_id}"))
    assert stream.last_event_id.endswith("-end")


async def test_who_comes_late_is_told_all_of_it(
    service_url: str, api: httpx.AsyncClient, worker: Worker
) -> None:
    job_id = await submit(api)
    await worker.record(job_id, [RuleJobInState(number) for number in range(250)])
    await worker.log(job_id, [(1_760_000_000.0 + number, f"line {number}") for number in range(450)])
    await worker.bring_to(job_id, StateType.COMPLETED)

    async with following(service_url, f"/jobs/{job_id}/events") as stream:
        told = [event async for event in stream]

    assert {task["id"] for kind, task in told if kind == "task"} == {
        str(RuleJobInState(number).task_id(job_id)) for number in range(250)
    }
    assert [line["message"] for kind, line in told if kind == "log"] == [f"line {n}" for n in range(450)]
    assert told[-1][0] == "job"


async def test_who_was_away_is_told_what_was_missed(
    service_url: str, api: httpx.AsyncClient, worker: Worker
) -> None:
    job_id = await submit(api)
    await worker.bring_to(job_id, StateType.RUNNING)
    async with following(service_url, f"/jobs/{job_id}/events") as stream:
        await until(stream, "job", status="running")
        await worker.record(job_id, [RuleJobInState(1)])
        await until(stream, "task", name="map[n=1]")
        last_event_id = stream.last_event_id
    await worker.record(job_id, [RuleJobInState(2, StateType.FAILED)])
    await worker.log(job_id, [(1_760_000_000.0, "meanwhile")])
    await worker.bring_to(job_id, StateType.FAILED)

    async with following(service_url, f"/jobs/{job_id}/events", last_event_id) as stream:
        told = [event async for event in stream]

    assert "map[n=2]" in [task["name"] for kind, task in told if kind == "task"]
    assert "meanwhile" in [line["message"] for kind, line in told if kind == "log"]
    assert told[-1][1]["status"] == "failed"


async def test_who_knows_all_of_a_job_that_has_ended_need_not_come_back(
    service_url: str, api: httpx.AsyncClient, worker: Worker
) -> None:
    job_id = await submit(api)
    await worker.bring_to(job_id, StateType.COMPLETED)
    async with following(service_url, f"/jobs/{job_id}/events") as stream:
        _ = [event async for event in stream]

    response = await api.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": stream.last_event_id})

    assert response.status_code == 204


async def test_who_follows_all_jobs_is_told_of_each_and_of_what_was_missed(
    service_url: str, api: httpx.AsyncClient, worker: Worker
) -> None:
    async with following(service_url, "/jobs/events") as stream:
        one, two = await submit(api), await submit(api)
        await until(stream, "job", id=str(two), status="pending")
        await worker.bring_to(one, StateType.RUNNING)
        await worker.label(one, {Label.PROGRESS_DONE: 3, Label.PROGRESS_TOTAL: 9})
        await until(stream, "job", id=str(one), progress={"done": 3, "total": 9})
        last_event_id = stream.last_event_id
    await worker.bring_to(two, StateType.COMPLETED)

    async with following(service_url, "/jobs/events", last_event_id) as stream:
        await until(stream, "job", id=str(two), status="completed")


async def test_what_happened_a_moment_ago_is_known_to_have(
    prefect: PrefectClient, api: httpx.AsyncClient, worker: Worker
) -> None:
    """Prefect writes its events down seconds later, and tells them only to who listened already."""
    waiting, running, ended = await submit(api), await submit(api), await submit(api)
    before = datetime.now(UTC)
    late = await submit(api)
    await worker.bring_to(running, StateType.RUNNING)
    await worker.bring_to(ended, StateType.COMPLETED)

    known = await Changes(prefect, 8).jobs_since(before)

    assert {running, ended, late} <= known
    assert waiting not in known


async def test_a_hundred_followers_cost_prefect_as_much_as_one(
    prefect_api_url: str, api: httpx.AsyncClient, worker: Worker, tmp_path: Path
) -> None:
    job_id = await submit(api)
    await worker.bring_to(job_id, StateType.RUNNING)

    async def requests_of(followers: int) -> int:
        """What Prefect is asked until every follower has seen five rounds."""
        asked = 0

        async def count(_: object) -> None:
            nonlocal asked
            asked += 1

        settings = Settings(home=tmp_path)
        async with PrefectClient(
            prefect_api_url, httpx_settings={"event_hooks": {"request": [count]}}
        ) as client:
            jobs = Jobs(client, settings, open_storage(settings), "http://prefect")
            following = Following(Changes(client, 8), jobs.get, jobs.many)

            async def follow() -> None:
                rounds = 0
                async for told in following.job(job_id, None):
                    rounds += isinstance(told, Moment)
                    if rounds == 5:
                        return

            async with anyio.create_task_group() as group:
                for _ in range(followers):
                    group.start_soon(follow)
        return asked

    one = await requests_of(1)
    assert await requests_of(100) <= 1.5 * one


@pytest.mark.parametrize("last_event_id", ["yesterday", "12-", "-end", "1" * 15])
@pytest.mark.parametrize("path", ["/jobs/events", "/jobs/{id}/events"])
async def test_what_is_no_id_of_an_event_is_refused(
    api: httpx.AsyncClient, path: str, last_event_id: str
) -> None:
    job_id = await submit(api)

    response = await api.get(path.format(id=job_id), headers={"Last-Event-ID": last_event_id})

    assert the_problem(response, 400)["errors"]


async def test_a_job_that_is_not_there_can_not_be_followed(api: httpx.AsyncClient) -> None:
    the_problem(await api.get(f"/jobs/{UUID(int=7)}/events"), 404)
