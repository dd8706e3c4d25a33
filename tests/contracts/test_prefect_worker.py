"""What our worker overrides and reads of Prefect's `BaseWorker`."""

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import get_current_settings
from prefect.utilities.services import critical_service_loop
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from deployments.ecs_tasks import _FLOW_RUN_TAG
from flows.contract.spec import Label
from flows.worker.worker import SnakemakeWorker
from tests.contracts.overriding import assert_overrides, is_called_by

HOOKS = {
    "_cancel_run",
    "_submit_run",
    "_submit_scheduled_flow_runs",
    "get_and_submit_flow_runs",
    "get_default_base_job_template",
    "run",
    "setup",
    "sync_with_backend",
    "teardown",
}
CALLED_BY_PREFECT = HOOKS - {"get_default_base_job_template", "run"}
READ = (
    "_has_successfully_synced",
    "_limiter",
    "_release_limit_slot",
    "_runs_task_group",
    "_submitting_flow_run_ids",
    "_work_pool",
    "_work_pool_name",
    "backend_id",
    "is_setup",
    "name",
)


class PlainWorker(BaseWorker[BaseJobConfiguration, BaseVariables, BaseWorkerResult]):
    """Prefect's worker with nothing of ours, in front of a Prefect that is away."""

    type = "plain"

    @property
    def client(self) -> Any:
        return SimpleNamespace(read_deployment=_is_away)

    async def run(self, *_: Any, **__: Any) -> BaseWorkerResult:
        raise NotImplementedError


async def _is_away(*_: object) -> None:
    raise httpx.ConnectError("Prefect is away")


def test_the_hooks_of_our_worker_are_there_with_the_same_arguments() -> None:
    assert_overrides(SnakemakeWorker, BaseWorker, HOOKS)


@pytest.mark.parametrize("name", sorted(CALLED_BY_PREFECT))
def test_prefect_still_calls_each_of_them(name: str) -> None:
    assert is_called_by(BaseWorker, name)


def test_prefect_still_reads_deployment_and_flow_and_sends_labels_and_a_pid_for_each_run() -> None:
    """When this fails, our `_submit_run` may be superfluous."""
    submit = inspect.getsource(BaseWorker._submit_run)
    assert "client.read_deployment(" in submit
    assert "infrastructure_pid=" in submit
    assert "_give_worker_labels_to_flow_run(" in inspect.getsource(BaseWorker._submit_run_and_capture_errors)
    resolve = inspect.getsource(BaseJobConfiguration.resolve_for_flow_run)
    assert "client.read_deployment(" in resolve
    assert "client.read_flow(" in resolve


def test_what_our_worker_calls_of_prefects_job_configuration() -> None:
    assert list(inspect.signature(BaseJobConfiguration.from_template_and_values).parameters) == [
        "base_job_template",
        "values",
        "client",
    ]


@pytest.mark.parametrize("name", READ)
def test_what_our_worker_reads_of_prefects_is_there(name: str) -> None:
    assert hasattr(SnakemakeWorker(work_pool_name="snakemake"), name)


def test_a_slot_of_the_limit_is_released_by_the_id_of_its_job() -> None:
    assert list(inspect.signature(BaseWorker._release_limit_slot).parameters) == ["self", "flow_run_id"]
    assert "acquire_on_behalf_of_nowait(flow_run.id)" in inspect.getsource(
        BaseWorker._submit_scheduled_flow_runs
    )


def test_prefects_worker_leaves_what_the_reconciler_finds_tasks_and_workers_by() -> None:
    flow_run = FlowRun(flow_id=uuid4())
    tags = BaseJobConfiguration._base_flow_run_labels(flow_run)
    assert tags[_FLOW_RUN_TAG] == str(flow_run.id)
    label = f'"{Label.WORKER}": self.name'
    assert label in inspect.getsource(BaseWorker._give_worker_labels_to_flow_run)


def test_prefect_still_listens_for_cancels_only_when_asked_to() -> None:
    assert not get_current_settings().worker.enable_cancellation, "else our listener may be superfluous"


async def _submit(worker: BaseWorker[Any, Any, Any]) -> None:
    await worker._submit_run(FlowRun(flow_id=uuid4(), deployment_id=uuid4()))


def test_a_failed_request_still_ends_the_submission_of_prefects_worker() -> None:
    """Our `_submit_run` catches it: it would end the task group of all jobs."""
    with pytest.raises(httpx.ConnectError):
        asyncio.run(_submit(PlainWorker(work_pool_name="plain")))


def test_prefects_loops_still_give_up_when_prefect_is_away() -> None:
    """Our `sync_with_backend` and `get_and_submit_flow_runs` catch what would end them."""
    loop = critical_service_loop(_is_away, interval=0, consecutive=1, backoff=1, printer=lambda *_: None)
    with pytest.raises(RuntimeError, match="Service exceeded error threshold"):
        asyncio.run(loop)
