"""Nothing is ever shown as running that is not: whatever is killed, the job says so."""

import os
import signal
import time
from uuid import UUID

import httpx
import psutil
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType

from deployments.local import LocalStack
from flows.worker.close_task_runs import close_task_runs
from flows.worker.settling import claim_of
from tests.api.support import RuleJobInState, Worker
from tests.support import JobsClient, flow_process_of, processes_of, wait_until


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


@pytest.mark.anyio
async def test_of_a_killed_flow_process_every_open_rule_job_is_closed(
    jobs: JobsClient, stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many: Prefect gives 200 at once, and patience is counted without news only."""
    monkeypatch.setattr("flows.worker.close_task_runs._ROUNDS", 3)
    job_id = jobs.submit(engine="mock", group="large", name="never run")
    jobs.http.post(f"/jobs/{job_id}/cancel")
    async with PrefectClient(f"{stack.settings.prefect_url}/api", auth_string=stack.auth_string) as prefect:
        worker = Worker(prefect)
        await worker.record(UUID(job_id), [RuleJobInState(n, StateType.PENDING) for n in range(900)])

        await close_task_runs(prefect, UUID(job_id), is_cancelled=True)

    assert set(jobs.statuses(job_id).values()) == {"cancelled"}


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


def test_a_worker_that_is_stopped_ends_the_jobs_of_the_killed_one_before_it(
    jobs: JobsClient, stack: LocalStack, running: str
) -> None:
    os.kill(stack.worker.pid, signal.SIGKILL)
    stack.restart_worker()
    jobs.wait(jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1}), "completed")

    stack.restart_worker()

    assert_ended_by_the_system(jobs, running)
    assert "stopped" in jobs.get(running)["error"]["message"]


def test_a_job_that_a_killed_worker_had_claimed_runs_with_the_next(
    jobs: JobsClient, prefect_api: httpx.Client, stack: LocalStack
) -> None:
    """The worker has set it to Pending, and was killed before it could fork a flow process."""
    os.kill(stack.worker.pid, signal.SIGKILL)
    wait_until(lambda: stack.worker.has_ended, "the worker is gone")
    ids = [jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1}) for _ in range(2)]
    for job_id, message in zip(ids, (claim_of("local"), "Nobody says who."), strict=True):
        state = {"type": "PENDING", "message": message}
        prefect_api.post(f"/flow_runs/{job_id}/set_state", json={"state": state}).raise_for_status()

    stack.restart_worker()

    for job_id in ids:
        jobs.wait(job_id, "completed", seconds=15)


def test_the_jobs_of_a_worker_that_is_gone_count_against_the_limit_of_the_next(
    jobs: JobsClient, stack: LocalStack, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(stack.worker.pid, signal.SIGKILL)
    with monkeypatch.context() as patches:
        patches.setenv("PREFECT_WORKER_HEARTBEAT_SECONDS", "1")
        patches.setattr(stack, "settings", stack.settings.model_copy(update={"concurrent_jobs": 1}))
        stack.restart_worker()

        later = jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1})
        time.sleep(3)
        assert jobs.get(later)["status"] == "pending"

        jobs.http.post(f"/jobs/{running}/cancel")
        jobs.wait(running, "cancelled")
        jobs.wait(later, "completed", seconds=30)
    stack.restart_worker()


def test_a_zygote_that_dies_is_replaced(jobs: JobsClient, stack: LocalStack) -> None:
    zygote = psutil.Process(stack.worker.pid).children()[0]
    zygote.kill()

    job_id = jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1})

    assert jobs.wait(job_id)["status"] == "completed"
