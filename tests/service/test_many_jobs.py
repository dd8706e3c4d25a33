"""Many jobs at once, big jobs, and counts that are exact all the time."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from deployments.local import LocalStack
from tests.support import FINAL, JobsClient, wait_until


def submit(url: str, spec: dict[str, object]) -> str:
    """Submit as a client of its own."""
    with httpx.Client(base_url=url, timeout=60) as http:
        return JobsClient(http).submit(**spec)


def test_ten_mock_and_three_real_jobs_all_end_and_every_count_is_exact(
    stack: LocalStack, jobs: JobsClient
) -> None:
    tag = {"test": "thirteen"}
    mock = {"engine": "mock", "tags": tag, "mock": {"delay_seconds": [1, 3], "success_rate": 1}}
    touch = str(stack.settings.workflow_roots.split(":")[0]) + "/touch"
    real = {"workflow": {"path": touch}, "config": {"count": 5}, "tags": tag}
    with ThreadPoolExecutor(13) as clients:
        job_ids = set(
            clients.map(lambda spec: submit(stack.settings.api_url, spec), [mock] * 10 + [real] * 3)
        )
    assert len(job_ids) == 13

    def all_have_ended() -> bool:
        # One list is one moment: every job is in it once, with one status.
        listed = list(jobs.items("/jobs", tag="test:thirteen", limit=200))
        assert {job["id"] for job in listed} == job_ids
        assert len(listed) == 13
        return all(job["status"] in FINAL for job in listed)

    wait_until(all_have_ended, "all thirteen have ended", seconds=120)
    for status, count in {"completed": 13, "running": 0, "pending": 0, "failed": 0}.items():
        assert len(list(jobs.items("/jobs", tag="test:thirteen", status=status))) == count, status


def test_nothing_of_three_thousand_rule_jobs_is_lost(jobs: JobsClient, prefect_api: httpx.Client) -> None:
    job_id = jobs.submit(engine="mock", mock={"rules": 3000, "delay_seconds": [0, 0], "success_rate": 1})

    job = jobs.wait(job_id, seconds=240)

    assert job["progress"] == {"done": 3000, "total": 3000}
    recorded = prefect_api.post("/task_runs/count", json={"flow_runs": {"id": {"any_": [job_id]}}}).json()
    assert recorded == 3000
    names = Counter(task["name"] for task in jobs.items(f"/jobs/{job_id}/tasks", limit=200))
    assert len(names) == 3000
    assert set(names.values()) == {1}
