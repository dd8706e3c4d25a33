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
from flows.worker.job_configuration import JobConfiguration
from flows.worker.worker import SnakemakeWorker
from tests.contracts.overriding import assert_overrides, is_called_by

HOOKS = {
    "_cancel_run",
    "_propose_crashed_state",
    "_propose_pending_state",
    "_propose_submitting_state",
    "_submit_run",
    "_submit_run_and_capture_errors",
    "_submit_scheduled_flow_runs",
    "get_and_submit_flow_runs",
    "get_default_base_job_template",
    "run",
    "setup",
    "sync_with_backend",
    "teardown",
}
CALLED_BY_PREFECT = HOOKS - {"get_default_base_job_template"}
READ = (
    "_has_successfully_synced",
    "_limiter",
    "_runs_task_group",
    "_submitting_flow_run_ids",
    "_work_pool",
    "_work_pool_name",
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


def test_the_hook_of_our_job_configuration_is_there_and_called() -> None:
    assert next(iter(inspect.signature(BaseJobConfiguration.resolve_for_flow_run).parameters)) == "flow_run"
    assert "resolve_for_flow_run" in vars(JobConfiguration)
    assert "job_configuration.resolve_for_flow_run(" in inspect.getsource(BaseWorker)
    assert "flow_run.job_variables" in inspect.getsource(BaseJobConfiguration.resolve_for_flow_run)


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
    assert '"prefect.worker.name": self.name' in inspect.getsource(BaseWorker._give_worker_labels_to_flow_run)


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
