"""Servers are killed while jobs run: the jobs go on, and nothing that was true before is untrue after."""

import os
import signal

import psutil
import pytest

from deployments.local import LocalStack
from tests.support import JobsClient, Json, processes_of, wait_until

JOBS = 20
MOCK = {"delay_seconds": [5, 8], "success_rate": 1, "rules": 5}
_ORDER = ("pending", "running", "completed")


@pytest.fixture
def running(jobs: JobsClient) -> list[str]:
    """Mock jobs and one of Snakemake, all of them under way."""
    job_ids = [jobs.submit(engine="mock", mock=MOCK, name="outage") for _ in range(JOBS - 1)]
    job_ids.append(jobs.submit_workflow("sleeper", name="outage", cores=1, config={"seconds": 4}))
    wait_until(lambda: _count(jobs, "running") >= 10, "ten jobs run at once")
    return job_ids


def test_killed_servers_lose_nothing(jobs: JobsClient, stack: LocalStack, running: list[str]) -> None:
    first_page = jobs.http.get("/jobs", params={"name": "outage", "limit": 7}).json()
    before = {job_id: jobs.get(job_id)["status"] for job_id in running}
    last_event_id = _events(jobs, running[-1], "")[1]

    os.kill(stack.server.pid, signal.SIGKILL)
    answer = jobs.http.get("/jobs", params={"name": "outage"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    stack.restart_server()
    os.kill(stack.api.pid, signal.SIGKILL)
    stack.restart_api()

    for job_id in running:
        job = jobs.wait(job_id, "completed", seconds=180)
        assert _ORDER.index(job["status"]) >= _ORDER.index(before[job_id])
        assert job["progress"]["done"] == job["progress"]["total"] == 5
        assert list(jobs.statuses(job_id).values()) == ["completed"] * 5
    _walks_on(jobs, first_page, running)
    told, last_event_id = _events(jobs, running[-1], last_event_id, to_the_end=True)
    assert told[-1] == "job"
    assert last_event_id.endswith("-end")


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
    running = jobs.submit_workflow("sleeper", cores=4, config={"seconds": 3})
    jobs.wait_for_running_rule_job(running)

    psutil.Process(stack.worker.pid).send_signal(signal.SIGTERM)
    later = jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1})

    assert jobs.wait(running, seconds=30)["status"] == "completed"
    assert jobs.get(later)["status"] == "pending"
    monkeypatch.delenv("JOBS_DRAIN_SECONDS")
    stack.restart_worker()
    assert jobs.wait(later)["status"] == "completed"


def _events(
    jobs: JobsClient, job_id: str, last_event_id: str, *, to_the_end: bool = False
) -> tuple[list[str], str]:
    """Kinds of the events that a follower is told, and the id of the last one."""
    kinds: list[str] = []
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with jobs.http.stream("GET", f"/jobs/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                kinds.append(value)
            elif field == "id":
                last_event_id = value
                if not to_the_end:
                    break
    return kinds, last_event_id


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
