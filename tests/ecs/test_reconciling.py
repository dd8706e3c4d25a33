"""The reconciler ends what is stuck and harms nothing else, whatever happens while it looks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from moto.core.exceptions import JsonRESTError

from tests.ecs.aws import CLUSTER, FAMILY, before_each
from tests.ecs.conftest import EcsStack
from tests.ecs.test_nothing_is_stuck import submit_held
from tests.support import JobsClient, Json, wait_until


@contextmanager
def a_look(stack: EcsStack) -> Iterator[None]:
    """One look that has read the jobs and not yet their tasks; it goes on at the end."""
    has_read, may_go_on = threading.Event(), threading.Event()

    def wait() -> None:
        has_read.set()
        may_go_on.wait(30)

    with before_each(stack.aws, "list_tasks", wait):
        look = stack.start_reconciler("--once", JOBS_ECS_SETTLE_SECONDS="0")
        try:
            assert has_read.wait(30)
            yield
            may_go_on.set()
            wait_until(lambda: look.has_ended, "the look has ended")
        finally:
            may_go_on.set()
            look.stop(10)
    assert "Traceback" not in look.log.read_text()


def test_a_job_that_ends_during_a_look_is_not_judged_by_a_later_clock(
    jobs: JobsClient, stack: EcsStack, prefect_api: httpx.Client
) -> None:
    def told() -> tuple[str, Json]:
        flow_run = prefect_api.get(f"/flow_runs/{job_id}").json()
        return flow_run["state"]["id"], flow_run["labels"]

    with stack.without_reconciler():
        job_id = jobs.submit(engine="mock", mock={"delay_seconds": [8, 8], "success_rate": 0, "rules": 1})
        jobs.wait(job_id, "running")
        with a_look(stack):
            assert jobs.get(job_id)["status"] == "running", "the look has seen it so"
            jobs.wait(job_id, "failed")
            wait_until(lambda: not stack.agent.living(), "its task has ended")
            at_its_end = told()

        assert told() == at_its_end


@pytest.mark.parametrize("ending", ["COMPLETED", "FAILED"])
def test_a_job_that_ends_during_a_look_is_not_cancelled(
    jobs: JobsClient, stack: EcsStack, prefect_api: httpx.Client, ending: str
) -> None:
    with stack.without_reconciler():
        job_id = submit_held(jobs, stack)
        jobs.http.post(f"/jobs/{job_id}/cancel")
        with a_look(stack):
            state = {"state": {"type": ending}, "force": True}
            prefect_api.post(f"/flow_runs/{job_id}/set_state", json=state).raise_for_status()

        assert prefect_api.get(f"/flow_runs/{job_id}").json()["state_type"] == ending
        assert stack.aws.tasks_of(job_id)[0]["desiredStatus"] == "RUNNING", "the next look stops it"


def strange_tag(stack: EcsStack, prefect_api: httpx.Client, job_id: str) -> None:
    """Somebody starts a task of the family by hand, with a tag that is no job's id."""
    stack.aws.ecs.run_task(
        cluster=CLUSTER,
        taskDefinition=FAMILY,
        launchType="FARGATE",
        overrides={"containerOverrides": [{"name": "job", "command": ["true"]}]},
        tags=[{"key": "prefect.io/flow-run-id", "value": "mine"}],
        networkConfiguration={
            "awsvpcConfiguration": {
                "subnets": [stack.aws.subnet],
                "securityGroups": [stack.aws.security_group],
            }
        },
    )


def task_of_another_cluster(stack: EcsStack, prefect_api: httpx.Client, job_id: str) -> None:
    """A job was started before somebody changed the cluster, and runs there."""
    arn = "arn:aws:ecs:eu-central-1:123456789012:task/elsewhere/0123456789abcdef"
    write_down(prefect_api, job_id, f"elsewhere::{arn}")


def no_arn(stack: EcsStack, prefect_api: httpx.Client, job_id: str) -> None:
    write_down(prefect_api, job_id, "anything::at all")


def write_down(prefect_api: httpx.Client, job_id: str, pid: str) -> None:
    written = prefect_api.patch(f"/flow_runs/{job_id}", json={"infrastructure_pid": pid})
    written.raise_for_status()


@pytest.fixture
def ecs_refuses_what_is_of_another_cluster(stack: EcsStack) -> Iterator[None]:
    """As ECS does and moto does not: the whole request, whatever else it names."""
    describe_tasks = stack.aws.backend.describe_tasks

    def strict(cluster_str: str, tasks: list[str]) -> Any:
        if any(f":task/{CLUSTER}/" not in arn for arn in tasks):
            raise JsonRESTError("InvalidParameterException", "Invalid identifier: ...")
        return describe_tasks(cluster_str, tasks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack.aws.backend, "describe_tasks", strict)
        yield


@pytest.mark.usefixtures("ecs_refuses_what_is_of_another_cluster")
@pytest.mark.parametrize("happen", [strange_tag, task_of_another_cluster, no_arn])
def test_one_strange_thing_does_not_stop_the_look_at_all_others(
    jobs: JobsClient, stack: EcsStack, prefect_api: httpx.Client, happen: Any
) -> None:
    strange, other = submit_held(jobs, stack), submit_held(jobs, stack)
    wait_until(lambda: prefect_api.get(f"/flow_runs/{strange}").json()["infrastructure_pid"], "it is known")
    happen(stack, prefect_api, strange)

    jobs.http.post(f"/jobs/{other}/cancel")

    jobs.wait(other, "cancelled", seconds=15)
    assert not stack.reconciler.has_ended
    for arn in stack.agent.living():
        stack.aws.ecs.stop_task(cluster=CLUSTER, task=arn)
    end(prefect_api, strange)


def end(prefect_api: httpx.Client, job_id: str) -> None:
    cancelled = {"state": {"type": "CANCELLED"}, "force": True}
    prefect_api.post(f"/flow_runs/{job_id}/set_state", json=cancelled).raise_for_status()


def test_a_defect_in_a_look_is_told_and_the_next_look_happens(jobs: JobsClient, stack: EcsStack) -> None:
    job_id = submit_held(jobs, stack)
    (arn,) = stack.agent.living()
    task: Any = stack.aws.backend.tasks[CLUSTER][arn]
    log = stack.reconciler.log
    start = len(log.read_text())
    task.created_at, created_at = None, task.created_at  # no DescribeTasks of AWS answers so
    wait_until(
        lambda: "A pass over all jobs has failed" in log.read_text()[start:], "the failed pass is logged"
    )
    task.created_at = created_at

    jobs.http.post(f"/jobs/{job_id}/cancel")

    jobs.wait(job_id, "cancelled", seconds=15)
