"""A job's status, progress and error are read from Prefect."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.flows import flow
from prefect.states import Running

from flows.contract.spec import FLOW_NAME, Label
from tests.api.support import Worker, get, submit, the_problem

pytestmark = pytest.mark.anyio


async def job_in(api: httpx.AsyncClient, worker: Worker, state_type: StateType, message: str = "") -> Any:
    job_id = await submit(api)
    await worker.bring_to(job_id, state_type, message)
    return await get(api, f"/jobs/{job_id}")


@pytest.mark.parametrize(
    ("state_type", "status"),
    [
        (StateType.PENDING, "pending"),
        (StateType.RUNNING, "running"),
        (StateType.PAUSED, "paused"),
        (StateType.COMPLETED, "completed"),
        (StateType.FAILED, "failed"),
        (StateType.CRASHED, "failed"),
        (StateType.CANCELLING, "cancelling"),
        (StateType.CANCELLED, "cancelled"),
    ],
)
async def test_the_status_follows_prefects_state(
    api: httpx.AsyncClient, worker: Worker, state_type: StateType, status: str
) -> None:
    job = await job_in(api, worker, state_type)

    assert job["status"] == status
    assert (job["error"] is not None) == (status == "failed")
    assert (job["finished_at"] is not None) == (status in ("completed", "failed", "cancelled"))
    assert job["started_at"].endswith("Z")


@pytest.mark.parametrize(
    ("state_type", "kind"), [(StateType.FAILED, "workflow"), (StateType.CRASHED, "system")]
)
async def test_a_job_that_failed_says_whose_fault_it_was(
    api: httpx.AsyncClient, worker: Worker, state_type: StateType, kind: str
) -> None:
    job_id = await submit(api)
    await worker.label(
        job_id,
        {
            Label.ERROR_KIND: kind,
            Label.ERROR_RULE: "call",
            Label.ERROR_MESSAGE: "no space left on device",
            Label.ERROR_RESOLUTION: "Make room.",
        },
    )
    await worker.bring_to(job_id, state_type, "something less helpful")

    assert (await get(api, f"/jobs/{job_id}"))["error"] == {
        "kind": kind,
        "rule": "call",
        "message": "no space left on device",
        "resolution": "Make room.",
    }


async def test_the_error_of_an_earlier_run_does_not_explain_a_crash(
    api: httpx.AsyncClient, worker: Worker
) -> None:
    job_id = await submit(api)
    await worker.label(job_id, {Label.ERROR_KIND: "workflow", Label.ERROR_MESSAGE: "at first"})
    await worker.bring_to(job_id, StateType.CRASHED, "killed")

    assert (await get(api, f"/jobs/{job_id}"))["error"]["message"] == "killed"


async def test_a_flow_that_failed_without_a_word_is_the_workflows_fault(
    api: httpx.AsyncClient, worker: Worker
) -> None:
    error = (await job_in(api, worker, StateType.FAILED, "exit code 1"))["error"]

    assert (error["kind"], error["rule"], error["message"]) == ("workflow", None, "exit code 1")
    assert "Read the log" in error["resolution"]


async def test_a_crash_is_the_systems_fault_and_worth_another_try(
    api: httpx.AsyncClient, worker: Worker
) -> None:
    error = (await job_in(api, worker, StateType.CRASHED, "the worker is gone"))["error"]

    assert (error["kind"], error["message"]) == ("system", "the worker is gone")
    assert error["resolution"].startswith("Resume the job")


async def test_a_failure_that_was_overcome_is_no_error(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(api)
    await worker.label(job_id, {Label.ERROR_KIND: "workflow", Label.ERROR_MESSAGE: "at first"})
    await worker.bring_to(job_id, StateType.COMPLETED)

    assert (await get(api, f"/jobs/{job_id}"))["error"] is None


async def test_jobs_of_a_group_that_was_deleted_a_moment_ago_are_no_defect(
    api: httpx.AsyncClient, prefect: PrefectClient
) -> None:
    """The facade knows of the group for some seconds more."""
    flow_id = (await prefect.read_flow_by_name(FLOW_NAME)).id
    group = f"short-lived-{uuid4()}"
    deployment_id = await prefect.create_deployment(flow_id, group, enforce_parameter_schema=False)
    job_id = await submit(api, group=group)
    await prefect.set_flow_run_state(job_id, State(type=StateType.PENDING), force=True)

    await prefect.delete_deployment(deployment_id)

    assert (await api.get(f"/jobs/{job_id}")).status_code in (200, 404)
    assert (await api.get("/jobs", params={"limit": 5})).status_code == 200


async def test_progress_counts_rule_jobs(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(api)
    await worker.label(job_id, {Label.PROGRESS_DONE: 3, Label.PROGRESS_TOTAL: 7})

    assert (await get(api, f"/jobs/{job_id}"))["progress"] == {"done": 3, "total": 7}


async def test_a_flow_run_of_another_flow_is_no_job(api: httpx.AsyncClient, prefect: PrefectClient) -> None:
    @flow(name="somebody-elses")
    def another() -> None: ...

    flow_run = await prefect.create_flow_run(another)

    for path in ("", "/tasks", "/logs", "/outputs"):
        the_problem(await api.get(f"/jobs/{flow_run.id}{path}"), 404)
    the_problem(await api.post(f"/jobs/{flow_run.id}/cancel"), 404)


class TestCancelling:
    """a job asks Prefect to; what follows is Prefect's to decide."""

    async def test_that_has_not_started_ends_it_at_once(self, api: httpx.AsyncClient) -> None:
        job_id = await submit(api)

        response = await api.post(f"/jobs/{job_id}/cancel")

        assert response.status_code == 202
        assert response.json()["status"] == "cancelled"
        assert response.json()["finished_at"]

    async def test_that_runs_leaves_the_rest_to_the_worker(
        self, api: httpx.AsyncClient, prefect: PrefectClient
    ) -> None:
        job_id = await submit(api)
        await prefect.set_flow_run_state(job_id, Running(), force=True)

        response = await api.post(f"/jobs/{job_id}/cancel")

        assert response.status_code == 202
        assert response.json()["status"] == "cancelling"

    @pytest.mark.parametrize("state_type", [StateType.CANCELLING, StateType.CANCELLED])
    async def test_that_is_being_cancelled_changes_nothing(
        self, api: httpx.AsyncClient, worker: Worker, prefect: PrefectClient, state_type: StateType
    ) -> None:
        job_id = await submit(api)
        await worker.bring_to(job_id, state_type)
        before = await self.state_id(prefect, job_id)

        response = await api.post(f"/jobs/{job_id}/cancel")

        assert response.status_code == 202
        assert response.json()["status"] == state_type.value.lower()
        assert await self.state_id(prefect, job_id) == before

    @pytest.mark.parametrize("state_type", [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED])
    async def test_that_has_finished_is_refused(
        self, api: httpx.AsyncClient, worker: Worker, state_type: StateType
    ) -> None:
        job_id = await submit(api)
        await worker.bring_to(job_id, state_type)

        problem = the_problem(await api.post(f"/jobs/{job_id}/cancel"), 409)

        assert problem["type"].endswith(":job-already-finished")

    @staticmethod
    async def state_id(prefect: PrefectClient, job_id: UUID) -> UUID | None:
        return (await prefect.read_flow_run(job_id)).state_id
