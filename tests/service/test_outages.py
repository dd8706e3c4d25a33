"""Servers are killed while jobs run: the jobs go on, and nothing that was true before is untrue after."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import httpx
import psutil
import pytest

from deployments.local import LocalStack
from tests.benchmarks.processes import flow_zygote
from tests.conftest import JOBS_AT_ONCE
from tests.database import database_of
from tests.support import JobsClient, Json, is_ready, processes_of, wait_until

_ORDER = ("pending", "running", "completed")
_LISTENERS = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN %prefect_automation_changes%'"
MOCK = {"delay_seconds": [30, 35], "success_rate": 1, "rules": 5}


@pytest.fixture
def running(jobs: JobsClient) -> list[str]:
    """Mock jobs and one of Snakemake, all of them under way."""
    job_ids = [jobs.submit(engine="mock", mock=MOCK, name="outage") for _ in range(JOBS_AT_ONCE - 1)]
    job_ids.append(jobs.submit_workflow("sleeper", name="outage", cores=1, config={"seconds": 8}))
    wait_until(lambda: _count(jobs, "running") == JOBS_AT_ONCE, "all of them run at once")
    return job_ids


def test_killed_servers_lose_nothing(jobs: JobsClient, stack: LocalStack, running: list[str]) -> None:
    first_page = jobs.http.get("/jobs", params={"name": "outage", "limit": 7}).json()
    known, last_event_id = _events(jobs, running[-1], "")

    with _watched(jobs) as seen:
        wait_until(lambda: len(seen) == JOBS_AT_ONCE, "every job was seen once")
        os.kill(stack.server.pid, signal.SIGKILL)
        answer = jobs.http.get("/jobs", params={"name": "outage"})
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        stack.restart_server()
        os.kill(stack.api.pid, signal.SIGKILL)
        stack.restart_api()

        for job_id in running:
            job = jobs.wait(job_id, "completed", seconds=180)
            assert job["progress"]["done"] == job["progress"]["total"] == 5
            assert list(jobs.statuses(job_id).values()) == ["completed"] * 5
    for statuses in seen.values():
        assert statuses == sorted(statuses, key=_ORDER.index), "a status went backwards"
    _walks_on(jobs, first_page, running)
    missed, last_event_id = _events(jobs, running[-1], last_event_id, to_the_end=True)
    assert last_event_id.endswith("-end")
    everything, _ = _events(jobs, running[-1], "", to_the_end=True)
    assert _said(everything) <= _said(known) | _said(missed)


def test_a_database_that_is_away_for_a_moment_costs_no_job(jobs: JobsClient, stack: LocalStack) -> None:
    """Prefect answers 500 meanwhile: to jobs that end, and to the worker that sees one die."""
    worker = psutil.Process(stack.worker.pid)
    lost = jobs.submit(engine="mock", mock={"delay_seconds": [60, 60]}, name="moment")
    wait_until(lambda: jobs.get(lost)["status"] == "running", "it runs")
    (flow_process,) = flow_zygote(stack).children()
    job_ids = [
        jobs.submit(engine="mock", mock={"delay_seconds": [delay, delay], "success_rate": 1}, name="moment")
        for delay in range(3, 9)
    ]
    wait_until(lambda: not list(jobs.items("/jobs", name="moment", status="pending")), "all of them run")

    # The worker is about to start these, or does not know them yet.
    job_ids += [
        jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1}, name="moment")
        for _ in range(8)
    ]
    with _database_away(stack):
        flow_process.kill()
        wait_until(lambda: "can't reach its database" in jobs.http.get("/readyz").text, "/readyz names it")
        time.sleep(6)

    wait_until(lambda: is_ready(jobs.http.get("/readyz").json()["parts"]), "the service is ready again")
    job_ids.append(jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1}))
    for job_id in job_ids:
        job = jobs.wait(job_id, "completed", seconds=120)
        assert job["progress"]["done"] == job["progress"]["total"]
    assert jobs.wait(lost, "failed", seconds=60)["error"]["kind"] == "system"
    assert worker.is_running()
    wait_until(lambda: asyncio.run(_listens(stack)), "Prefect hears of new triggers again")


def test_a_worker_that_is_stopped_ends_its_jobs_and_they_say_so(jobs: JobsClient, stack: LocalStack) -> None:
    job_id = jobs.submit_workflow("sleeper", cores=4)
    jobs.wait_for_running_rule_job(job_id)

    psutil.Process(stack.worker.pid).send_signal(signal.SIGTERM)

    job = jobs.wait(job_id, "failed", seconds=30)
    assert job["error"]["kind"] == "system"
    assert "stopped" in job["error"]["message"]
    assert job["error"]["resolution"]
    assert not {"pending", "running"} & set(jobs.statuses(job_id).values())
    wait_until(lambda: not processes_of(job_id), "the job's processes are gone", seconds=15)
    stack.restart_worker()


def test_a_worker_that_drains_lets_its_jobs_end_and_takes_no_others(
    jobs: JobsClient, stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS_DRAIN_SECONDS", "60")
    stack.restart_worker()
    short, long = (jobs.submit_workflow("sleeper", cores=4, config={"seconds": n}) for n in (3, 6))
    for job_id in (short, long):
        jobs.wait_for_running_rule_job(job_id)

    psutil.Process(stack.worker.pid).send_signal(signal.SIGTERM)
    later = jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1})

    assert jobs.wait(short, seconds=30)["status"] == "completed"  # its slot is free
    assert jobs.wait(long, seconds=30)["status"] == "completed"
    assert jobs.get(later)["status"] == "pending"
    monkeypatch.delenv("JOBS_DRAIN_SECONDS")
    stack.restart_worker()
    assert jobs.wait(later)["status"] == "completed"


@contextmanager
def _database_away(stack: LocalStack) -> Iterator[None]:
    """PostgreSQL is stopped, and started again as it was."""
    pid = (stack.settings.home / "postgres" / "postmaster.pid").read_text().split()[0]
    postgres = psutil.Process(int(pid))
    postgres.send_signal(signal.SIGINT)
    postgres.wait(30)
    try:
        yield
    finally:
        stack.supervise()


async def _listens(stack: LocalStack) -> bool:
    """Whether the Prefect server listens for new and changed automations."""
    async with database_of(stack) as connection:
        return bool(await connection.fetch(_LISTENERS))


@contextmanager
def _watched(jobs: JobsClient) -> Iterator[dict[str, list[str]]]:
    """The statuses of every job, one after the other, as one sees them who lists and asks all the time."""
    seen: dict[str, list[str]] = {}
    is_over = Event()

    def look() -> None:
        while not is_over.wait(0.05):
            try:
                page = jobs.http.get("/jobs", params={"name": "outage", "limit": 200})
                if page.status_code == 200:
                    for job in page.json()["items"]:
                        seen.setdefault(job["id"], []).append(job["status"])
                for job_id in list(seen)[::7]:
                    one = jobs.http.get(f"/jobs/{job_id}")
                    if one.status_code == 200:
                        seen[job_id].append(one.json()["status"])
            except httpx.TransportError:
                continue  # the facade is down as well

    with ThreadPoolExecutor(1) as others:
        looking = others.submit(look)
        try:
            yield seen
        finally:
            is_over.set()
            looking.result()


def _said(events: list[tuple[str, Json]]) -> set[str]:
    """Every log line, and how every rule job ended."""
    return {
        data["message"] if kind == "log" else f"{data['name']}: {data['status']}"
        for kind, data in events
        if kind == "log" or (kind == "task" and data["status"] not in ("pending", "running"))
    }


def _events(
    jobs: JobsClient, job_id: str, last_event_id: str, *, to_the_end: bool = False
) -> tuple[list[tuple[str, Json]], str]:
    """What a follower is told, and the id of the last event."""
    told: list[tuple[str, Json]] = []
    kind = ""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with jobs.http.stream("GET", f"/jobs/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                kind = value
            elif field == "data":
                told.append((kind, json.loads(value)))
            elif field == "id":
                last_event_id = value
                if not to_the_end:
                    break
    return told, last_event_id


def _walks_on(jobs: JobsClient, first_page: Json, job_ids: list[str]) -> None:
    """A cursor from before the outage still finds the rest, none twice and none missing."""
    page, ids = first_page, []
    while True:
        ids += [job["id"] for job in page["items"]]
        if page["next_cursor"] is None:
            break
        params = {"name": "outage", "limit": 7, "cursor": page["next_cursor"]}
        page = jobs.http.get("/jobs", params=params).raise_for_status().json()
    assert len(ids) == len(set(ids))
    assert set(job_ids) <= set(ids)


def _count(jobs: JobsClient, status: str) -> int:
    return len(list(jobs.items("/jobs", name="outage", status=status)))
