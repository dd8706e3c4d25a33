"""Nothing is ever shown as running that is not: whatever is killed, the job says so."""

import os
import signal

import httpx
import psutil
import pytest

from deployments.local import LocalStack
from tests.support import JobsClient, processes_of, wait_until


def flow_process_of(prefect_api: httpx.Client, job_id: str) -> psutil.Process:
    """The job's flow process, which our worker writes down as `host:pid:start`."""
    identifier = wait_until(
        lambda: prefect_api.get(f"/flow_runs/{job_id}").json()["infrastructure_pid"], "the worker names it"
    )
    return psutil.Process(int(identifier.split(":")[1]))


@pytest.fixture
def running(jobs: JobsClient) -> str:
    """A job whose rule jobs run, with children of children."""
    job_id = jobs.submit_workflow("sleeper", cores=4)
    jobs.wait_for_running_rule_job(job_id)
    assert len(processes_of(job_id)) > 4
    return job_id


def assert_ended_by_the_system(jobs: JobsClient, job_id: str) -> None:
    job = jobs.wait(job_id, "failed", seconds=60)
    assert job["error"]["kind"] == "system"
    assert job["error"]["resolution"]
    wait_until(lambda: not processes_of(job_id), "the job's processes are gone", seconds=15)
    assert not {"pending", "running"} & set(jobs.statuses(job_id).values())


def test_a_killed_flow_process(jobs: JobsClient, prefect_api: httpx.Client, running: str) -> None:
    flow_process_of(prefect_api, running).kill()

    assert_ended_by_the_system(jobs, running)
    assert "SIGKILL" in jobs.get(running)["error"]["message"]


def test_a_killed_snakemake(jobs: JobsClient, running: str) -> None:
    snakemake = min(processes_of(running), key=lambda process: process.create_time())
    snakemake.kill()

    assert_ended_by_the_system(jobs, running)


def test_worker_and_flow_process_killed_together(
    jobs: JobsClient, prefect_api: httpx.Client, stack: LocalStack, running: str
) -> None:
    flow_process = flow_process_of(prefect_api, running)
    os.kill(stack.worker.pid, signal.SIGKILL)
    flow_process.kill()

    wait_until(lambda: not processes_of(running), "the job's processes are gone", seconds=15)
    stack.restart_worker()

    assert_ended_by_the_system(jobs, running)


def test_a_killed_worker_leaves_its_jobs_running_and_the_next_one_cancels_them(
    jobs: JobsClient, stack: LocalStack, running: str
) -> None:
    os.kill(stack.worker.pid, signal.SIGKILL)
    stack.restart_worker()
    assert jobs.get(running)["status"] == "running"

    jobs.http.post(f"/jobs/{running}/cancel")

    jobs.wait(running, "cancelled", seconds=15)
    wait_until(lambda: not processes_of(running), "the job's processes are gone", seconds=15)


def test_a_zygote_that_dies_is_replaced(jobs: JobsClient, stack: LocalStack) -> None:
    zygote = psutil.Process(stack.worker.pid).children()[0]
    zygote.kill()

    job_id = jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1})

    assert jobs.wait(job_id)["status"] == "completed"
