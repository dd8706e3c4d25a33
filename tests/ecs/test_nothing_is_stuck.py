"""Whatever happens to a task, its job ends with a reason, and nothing of it runs on."""

import os
import signal
import threading

import httpx
import pytest
from moto.core.exceptions import JsonRESTError

from tests.ecs.aws import before_each
from tests.ecs.conftest import LIMIT, EcsStack
from tests.support import JobsClient, Json, wait_until

MOCK = {"engine": "mock", "mock": {"delay_seconds": [120, 120], "success_rate": 1, "rules": 3}}


def submit_held(jobs: JobsClient, stack: EcsStack) -> str:
    """A job whose task is there, and has not been started."""
    stack.agent.is_held = True
    job_id = jobs.submit(**MOCK)
    wait_until(lambda: stack.aws.tasks_of(job_id), "the worker has called RunTask")
    return job_id


def submit_running(jobs: JobsClient) -> str:
    job_id = jobs.submit(**MOCK)
    jobs.wait(job_id, "running")
    jobs.wait_for_running_rule_job(job_id)
    return job_id


def waits(event: threading.Event) -> None:
    assert event.wait(30)


def has_run(prefect_api: httpx.Client, job_id: str) -> bool:
    states = prefect_api.get("/flow_run_states/", params={"flow_run_id": job_id}).json()
    return any(state["type"] == "RUNNING" for state in states)


def failed_by_the_system(jobs: JobsClient, job_id: str, reason: str) -> Json:
    """The job, as soon as it says why it failed; it has no rule job that looks as if it ran."""
    jobs.wait(job_id, "failed")

    def explained() -> Json | None:
        job = jobs.get(job_id)
        return job if reason in job["error"]["message"] else None

    job = wait_until(explained, f"the job says '{reason}': {jobs.get(job_id)['error']}", seconds=30)
    assert job is not None
    assert job["error"]["kind"] == "system"
    assert job["error"]["resolution"]
    assert not {"pending", "running"} & set(jobs.statuses(job_id).values())
    return job


def test_a_job_that_is_cancelled_before_its_task_starts(jobs: JobsClient, stack: EcsStack) -> None:
    job_id = submit_held(jobs, stack)

    jobs.http.post(f"/jobs/{job_id}/cancel")

    jobs.wait(job_id, "cancelled", seconds=15)
    wait_until(lambda: not stack.agent.living(), "the task is stopped")
    assert stack.aws.tasks_of(job_id)[0]["stopCode"] == "UserInitiated"


def test_a_job_that_is_cancelled_before_its_worker_has_asked_for_a_task(
    jobs: JobsClient, stack: EcsStack, prefect_api: httpx.Client
) -> None:
    is_asked, is_answered = threading.Event(), threading.Event()

    def hold() -> None:
        is_asked.set()
        waits(is_answered)

    with before_each(stack.aws, "run_task", hold):
        job_id = jobs.submit(**MOCK)
        waits(is_asked)
        jobs.http.post(f"/jobs/{job_id}/cancel")
        jobs.wait(job_id, "cancelled", seconds=15)
        is_answered.set()
        wait_until(lambda: stack.aws.tasks_of(job_id), "the worker has its task after all")

    wait_until(lambda: not stack.agent.living(), "the task has ended")
    assert jobs.get(job_id)["status"] == "cancelled"
    assert not has_run(prefect_api, job_id)


def test_a_job_that_is_cancelled_while_its_container_starts(
    jobs: JobsClient, stack: EcsStack, prefect_api: httpx.Client
) -> None:
    job_id = jobs.submit(**MOCK)
    wait_until(lambda: stack.agent.has_started(job_id), "its container has started")

    jobs.http.post(f"/jobs/{job_id}/cancel")

    jobs.wait(job_id, "cancelled", seconds=15)
    wait_until(lambda: not stack.agent.living(), "the task has ended")
    assert jobs.get(job_id)["status"] == "cancelled"
    assert not has_run(prefect_api, job_id)


def test_a_job_that_is_cancelled_and_does_not_listen(jobs: JobsClient, stack: EcsStack) -> None:
    stack.agent.stop_seconds = 1
    with stack.reconciled_with(JOBS_ECS_CANCEL_SECONDS="2", JOBS_ECS_SETTLE_SECONDS="1"):
        job_id = submit_running(jobs)
        for process in stack.agent.container_of(job_id).processes():
            process.suspend()

        jobs.http.post(f"/jobs/{job_id}/cancel")

        jobs.wait(job_id, "cancelled", seconds=30)
    assert "still runs" in stack.aws.tasks_of(job_id)[0]["stoppedReason"]
    assert set(jobs.statuses(job_id).values()) <= {"cancelled", "completed"}


def test_a_cancel_does_not_wait_for_the_next_look(jobs: JobsClient, stack: EcsStack) -> None:
    with stack.reconciled_with(JOBS_ECS_RECONCILE_SECONDS="3600"):
        job_id = submit_held(jobs, stack)

        jobs.http.post(f"/jobs/{job_id}/cancel")

        jobs.wait(job_id, "cancelled", seconds=20)
        wait_until(lambda: not stack.agent.living(), "the task is stopped")


def test_a_job_that_is_cancelled_while_it_runs(jobs: JobsClient, stack: EcsStack) -> None:
    job_id = submit_running(jobs)

    jobs.http.post(f"/jobs/{job_id}/cancel")

    jobs.wait(job_id, "cancelled", seconds=30)
    assert set(jobs.statuses(job_id).values()) <= {"cancelled", "completed"}
    wait_until(lambda: not stack.agent.living(), "the task has ended", seconds=30)


def test_a_task_that_does_not_start(jobs: JobsClient, stack: EcsStack) -> None:
    stack.agent.start_failure = "CannotPullContainerError: the image was not found"

    job_id = jobs.submit(**MOCK)

    failed_by_the_system(jobs, job_id, "CannotPullContainerError")


@pytest.mark.parametrize("loses_events", [False, True], ids=["told", "lost event"])
def test_a_task_that_is_killed(jobs: JobsClient, stack: EcsStack, loses_events: bool) -> None:
    job_id = submit_running(jobs)
    stack.agent.loses_events = loses_events

    stack.agent.container_of(job_id).kill()

    job = failed_by_the_system(jobs, job_id, "exit code 137")
    assert "mem_mb" in job["error"]["resolution"]


def test_a_task_that_is_stopped_lets_its_job_say_so(
    jobs: JobsClient, stack: EcsStack, prefect_api: httpx.Client
) -> None:
    job_id = submit_running(jobs)
    (task,) = stack.aws.tasks_of(job_id)

    stack.aws.ecs.stop_task(cluster="jobs", task=task["taskArn"], reason="The subnet moves.")

    failed_by_the_system(jobs, job_id, "The subnet moves")
    assert stack.aws.task(task["taskArn"])["containers"][0]["exitCode"] == 1, (
        "Prefect's runner was not killed"
    )
    state = prefect_api.get(f"/flow_runs/{job_id}").json()["state"]
    assert state["message"] == "The job was interrupted: its worker was stopped."


def test_a_task_that_ends_with_exit_code_0_without_a_word(jobs: JobsClient, stack: EcsStack) -> None:
    job_id = submit_running(jobs)
    stack.agent.told_exit_code = 0

    stack.agent.container_of(job_id).kill()

    failed_by_the_system(jobs, job_id, "ended with exit code 0 and did not report how")


def test_a_task_that_ends_before_its_job_began(jobs: JobsClient, stack: EcsStack) -> None:
    stack.agent.command = ["true"]

    job_id = jobs.submit(**MOCK)

    failed_by_the_system(jobs, job_id, "ended with exit code 0")


def test_a_worker_that_is_killed_before_it_started_the_task(jobs: JobsClient, stack: EcsStack) -> None:
    worker_is_gone = threading.Event()

    def wait_for_its_end() -> None:
        os.kill(stack.worker.pid, signal.SIGKILL)
        worker_is_gone.wait(10)
        raise JsonRESTError("ServerException", "nobody waits for this answer")

    with before_each(stack.aws, "run_task", wait_for_its_end):
        job_id = jobs.submit(**MOCK)
        wait_until(lambda: stack.worker.has_ended, "the worker is gone")
        worker_is_gone.set()
    stack.start_worker()

    failed_by_the_system(jobs, job_id, "No worker has started a task")
    assert stack.aws.tasks_of(job_id) == []


def test_a_run_task_that_is_throttled_is_tried_again(jobs: JobsClient, stack: EcsStack) -> None:
    answers = 0

    def throttle() -> None:
        nonlocal answers
        answers += 1
        if answers <= 3:
            raise JsonRESTError("ThrottlingException", "Rate exceeded")

    with before_each(stack.aws, "run_task", throttle):
        job_id = submit_held(jobs, stack)

    assert answers == 4
    jobs.http.post(f"/jobs/{job_id}/cancel")
    jobs.wait(job_id, "cancelled")


def test_a_task_that_starts_after_its_job_was_given_up_runs_nothing_of_it(
    jobs: JobsClient, stack: EcsStack, prefect_api: httpx.Client
) -> None:
    is_answered = threading.Event()
    with (
        stack.reconciled_with(JOBS_ECS_SILENT_SECONDS="2", JOBS_ECS_SETTLE_SECONDS="60"),
        before_each(stack.aws, "run_task", lambda: waits(is_answered)),
    ):
        job_id = jobs.submit(engine="mock", mock={"delay_seconds": [0, 0], "success_rate": 1})
        failed_by_the_system(jobs, job_id, "No worker has started a task")
        is_answered.set()
        wait_until(lambda: stack.aws.tasks_of(job_id), "the worker has its task after all")
        wait_until(lambda: not stack.agent.living(), "the task has ended")

    assert stack.agent.container_of(job_id).process.returncode == 0
    assert jobs.get(job_id)["status"] == "failed"
    assert jobs.statuses(job_id) == {}
    assert not has_run(prefect_api, job_id)


def test_a_worker_takes_no_more_jobs_than_it_can_start(
    jobs: JobsClient, stack: EcsStack, prefect_api: httpx.Client
) -> None:
    stack.agent.is_held = True
    are_answered = threading.Event()
    with before_each(stack.aws, "run_task", lambda: waits(are_answered)):
        job_ids = [jobs.submit(**MOCK) for _ in range(LIMIT + 2)]

        def states() -> list[str]:
            return sorted(prefect_api.get(f"/flow_runs/{job_id}").json()["state_type"] for job_id in job_ids)

        wait_until(lambda: states().count("PENDING") >= LIMIT, "the worker has taken what it may")
        assert states() == ["PENDING"] * LIMIT + ["SCHEDULED"] * 2
        are_answered.set()
        wait_until(lambda: all(map(stack.aws.tasks_of, job_ids)), "each has a task, though none has ended")

    for job_id in job_ids:
        jobs.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
    for job_id in job_ids:
        jobs.wait(job_id, "cancelled")


def test_a_task_whose_job_was_removed_is_stopped(
    jobs: JobsClient, stack: EcsStack, prefect_api: httpx.Client
) -> None:
    job_id = submit_held(jobs, stack)

    prefect_api.delete(f"/flow_runs/{job_id}").raise_for_status()

    wait_until(lambda: not stack.agent.living(), "the task is stopped")
    assert stack.aws.tasks_of(job_id)[0]["stoppedReason"] == "Prefect has no such job."
