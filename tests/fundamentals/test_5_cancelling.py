"""A job can be cancelled at any time before it ends; nothing of it stays behind."""

import pytest

from tests.support import JobsClient, processes_of, wait_until


def test_a_cancelled_job_leaves_no_process_and_no_partial_output(jobs: JobsClient) -> None:
    job_id = jobs.submit_workflow("sleeper", cores=4)
    jobs.wait_for_running_rule_job(job_id)
    assert processes_of(job_id)

    answer = jobs.http.post(f"/jobs/{job_id}/cancel")

    assert answer.status_code == 202
    assert answer.json()["status"] in ("cancelling", "cancelled")
    job = jobs.wait(job_id, "cancelled", seconds=10)
    assert job["error"] is None
    wait_until(lambda: not processes_of(job_id), "the job's processes are gone", seconds=2)
    assert set(jobs.statuses(job_id).values()) == {"cancelled"}
    assert list(jobs.items(f"/jobs/{job_id}/outputs")) == []


def test_a_job_that_has_ended_can_not_be_cancelled(jobs: JobsClient) -> None:
    job_id = jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1})
    jobs.wait(job_id)

    answer = jobs.http.post(f"/jobs/{job_id}/cancel")

    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["resolution"]


@pytest.mark.parametrize("trial", range(3))
def test_a_job_can_be_cancelled_before_it_has_begun(jobs: JobsClient, trial: int) -> None:
    job_id = jobs.submit_workflow("sleeper", cores=4, name=f"cancelled-at-once-{trial}")

    assert jobs.http.post(f"/jobs/{job_id}/cancel").status_code == 202

    jobs.wait(job_id, "cancelled", seconds=10)
    assert not {"pending", "running", "completed"} & set(jobs.statuses(job_id).values())
    wait_until(lambda: not processes_of(job_id), "the job's processes are gone", seconds=5)
