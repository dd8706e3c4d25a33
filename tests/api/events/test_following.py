"""Who follows a job is told everything that happens to it, also after having been away."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType

from api.auth.callers import ANYONE, TokenScope
from api.auth.tokens import TokenFile
from api.events.feed import Change, Feed, Moment
from api.events.following import Following
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.changes import Changes
from api.prefect.reads import JobReads
from api.web.problems import PrefectUnavailable
from api.web.schemas import Job
from flows.contract.spec import Label
from tests.api.servers import facade_process
from tests.api.support import Json, RuleJobInState, Worker, get, submit, the_problem, wait_until

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
async def following(
    url: str, path: str, last_event_id: str = "", headers: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Stream]:
    headers = {**headers, "Last-Event-ID": last_event_id} if last_event_id else headers
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


@asynccontextmanager
async def own_reads(prefect_api_url: str) -> AsyncIterator[tuple[Changes, VisibleJobs]]:
    """What is followed in this process, by nobody else."""
    async with PrefectClient(prefect_api_url) as client:
        yield Changes(client, 8), VisibleJobs(ANYONE, JobReads.of(client, 8, "http://prefect"))


def following_of(changes: Changes, jobs: VisibleJobs) -> Following:
    return Following(changes, jobs.get, jobs.reads.flow_runs.many)


async def test_a_long_log_hides_no_rule_job(
    prefect_api_url: str,
    api: httpx.AsyncClient,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.events.feed.MOST_CHANGES", 250)
    monkeypatch.setattr("api.prefect.changes.MOST_LINES", 250)
    job_id = await submit(api)
    await worker.record(job_id, [RuleJobInState(number) for number in range(30)])
    # All of one instant, as the chunks of one attempt's output are: PostgreSQL orders them as it likes.
    await worker.log(job_id, [(1_760_000_000.0, f"early {number}") for number in range(150)])
    await worker.log(job_id, [(1_760_000_001.0, f"late {number}") for number in range(150)])
    await worker.bring_to(job_id, StateType.COMPLETED)

    async with own_reads(prefect_api_url) as (changes, jobs):
        following = following_of(changes, jobs)
        told = [change async for change in following.job(job_id, None) if isinstance(change, Change)]

    assert sum(change.event == "task" for change in told) == 30
    lines = [json.loads(change.data)["message"] for change in told if change.event == "log"]
    assert len(lines) == len(set(lines)) == 250
    assert {f"late {number}" for number in range(150)} <= set(lines)


async def test_who_is_slow_is_told_the_newest_of_what_has_changed_more_than_once() -> None:
    feed, rule_job = Feed(), uuid4()

    async def reach(data: str) -> None:
        feed.keep(Change("task", rule_job, data, datetime.now(UTC)))
        await feed.reach(Moment(datetime.now(UTC)))

    await reach("pending")
    slow = feed.follow(lambda _: True)
    told = [await anext(slow), await anext(slow)]
    await reach("running")
    await reach("completed")
    told += [await anext(slow), await anext(slow)]

    assert [each.data for each in told if isinstance(each, Change)] == ["pending", "completed"]
    assert isinstance(told[-1], Moment)


async def test_a_look_that_fails_is_made_again(
    prefect_api_url: str,
    api: httpx.AsyncClient,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of whatever it fails: who follows would wait for ever."""
    monkeypatch.setattr("api.events.following._PAUSE_SECONDS", 0.1)
    job_id = await submit(api)
    await worker.bring_to(job_id, StateType.COMPLETED)
    async with own_reads(prefect_api_url) as (changes, jobs):
        failures = [ZeroDivisionError("a defect"), PrefectUnavailable("away", "wait")]

        async def get_at_last(asked: UUID) -> Job:
            if failures:
                raise failures.pop()
            return await jobs.get(asked)

        with anyio.fail_after(10):
            told = [
                each
                async for each in Following(changes, get_at_last, jobs.reads.flow_runs.many).job(job_id, None)
            ]

    assert isinstance(told[-1], Moment)
    assert told[-1].is_end


async def test_a_hundred_followers_cost_prefect_as_much_as_one(
    prefect_api_url: str, api: httpx.AsyncClient, worker: Worker
) -> None:
    job_id = await submit(api)
    await worker.bring_to(job_id, StateType.RUNNING)

    async def requests_of(followers: int) -> int:
        """What Prefect is asked until every follower has seen five rounds."""
        asked = 0

        async def count(_: object) -> None:
            nonlocal asked
            asked += 1

        async with PrefectClient(
            prefect_api_url, httpx_settings={"event_hooks": {"request": [count]}}
        ) as client:
            jobs = VisibleJobs(ANYONE, JobReads.of(client, 8, "http://prefect"))
            following = following_of(Changes(client, 8), jobs)

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


@pytest.mark.parametrize("last_event_id", ["0", "1700000000000"])
async def test_who_was_away_for_days_asks_for_the_list(api: httpx.AsyncClient, last_event_id: str) -> None:
    """All that happened since would be read for whoever writes an old number."""
    response = await api.get("/jobs/events", headers={"Last-Event-ID": last_event_id})

    assert "GET /jobs" in the_problem(response, 400)["resolution"]


async def test_who_follows_all_jobs_sees_those_of_its_groups_only(
    prefect_api_url: str, api: httpx.AsyncClient, worker: Worker, tmp_path: Path
) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    headers = {"Authorization": f"Bearer {tokens.create('one', ['large'], TokenScope.READ)}"}
    before = str(Moment(datetime.now(UTC) - timedelta(seconds=1)))
    missed = [await submit(api), await submit(api, group="large")]
    with facade_process(prefect_api_url, tmp_path, JOBS_TOKENS_FILE=str(tmp_path / "tokens.json")) as url:
        async with following(url, "/jobs/events", before, headers) as stream:
            told = await until(stream, "job", id=str(missed[1]))
            strange, own = await submit(api), await submit(api, group="large")
            for job_id in (strange, own):
                await worker.bring_to(job_id, StateType.COMPLETED)
            told += await until(stream, "job", id=str(own), status="completed")

    assert {job["group"] for _, job in told} == {"large"}


async def test_nobody_follows_without_end(
    prefect_api_url: str, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    job_id = await submit(api)
    with facade_process(prefect_api_url, tmp_path, JOBS_MAX_STREAMS_PER_TOKEN="2") as url:
        async with (
            following(url, f"/jobs/{job_id}/events") as one,
            httpx.AsyncClient(base_url=url, timeout=10) as client,
        ):
            async with following(url, "/jobs/events"):
                await until(one, "job", status="pending")
                for path in ("/jobs/events", f"/jobs/{job_id}/events"):
                    problem = the_problem(await client.get(path), 429)
                    assert problem["type"].endswith(":too-many-streams")

            async def is_open_again() -> bool:
                async with client.stream("GET", "/jobs/events") as response:
                    return response.status_code == 200

            await wait_until(is_open_again, "one that was closed makes room for another")


async def test_a_job_that_is_not_there_can_not_be_followed(api: httpx.AsyncClient) -> None:
    the_problem(await api.get(f"/jobs/{UUID(int=7)}/events"), 404)
