"""A job is submitted, runs, and ends. Read these files in their order; each shows one more thing.

The mock engine needs no workflow: it tells the story of one, with a delay and an outcome of
your choice. Everything around it (Prefect, the worker, the API) is real.
"""

from tests.support import JobsClient


def test_a_job_is_submitted_and_completes(jobs: JobsClient) -> None:
    job_id = jobs.submit(engine="mock", mock={"delay_seconds": [0.5, 1], "success_rate": 1})

    job = jobs.wait(job_id)

    assert job["status"] == "completed"
    assert job["progress"] == {"done": 4, "total": 4}
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]


def test_a_job_that_fails_says_why_and_what_to_do(jobs: JobsClient) -> None:
    job_id = jobs.submit(engine="mock", mock={"delay_seconds": [0.5, 1], "success_rate": 0})

    job = jobs.wait(job_id)

    assert job["status"] == "failed"
    assert job["error"]["kind"] == "workflow"
    assert job["error"]["rule"].startswith("step_")
    assert job["error"]["resolution"]


def test_jobs_are_found_again_by_status_group_name_and_tag(jobs: JobsClient) -> None:
    spec = {"engine": "mock", "mock": {"delay_seconds": [0, 0], "success_rate": 1}}
    job_id = jobs.submit(name="found-again", tags={"project": "fundamentals"}, **spec)
    jobs.wait(job_id)

    for query in (
        {"status": "completed", "name": "found-again"},
        {"group": "default", "tag": "project:fundamentals"},
    ):
        assert [job["id"] for job in jobs.items("/jobs", **query)] == [job_id]
    assert list(jobs.items("/jobs", status="running", name="found-again")) == []
