"""What a flow process uses of Prefect's engine beyond its documented interface."""

import inspect
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from uuid import uuid4

import pytest
from prefect import results
from prefect._internal.schemas.validators import validate_parameter_size
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import SyncClientContext, root_settings_context
from prefect.engine import handle_engine_signals
from prefect.flow_engine import FlowRunEngine, run_flow
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED, temporary_settings
from prefect.utilities.engine import commit_control_intent_and_ack
from prefect.workers.base import BaseJobConfiguration

from flows.termination import Termination
from flows.worker.flow_client import FlowClient, client_context
from flows.worker.zygote import Inherited
from tests.contracts.overriding import assert_overrides


@contextmanager
def own_sigterm_handler() -> Iterator[None]:
    """A handler of SIGTERM that Prefect does not know."""

    def handle(_: int, __: FrameType | None) -> None:
        """Nothing is sent."""

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def prefects_runner_spares_this_process() -> bool:
    """What the runner asks before it kills a flow process that it wants to end."""
    return commit_control_intent_and_ack(_nothing, _nothing, _nothing)


def _nothing() -> None:
    """Neither intents nor answers matter here."""


def test_prefect_knows_the_handler_of_our_termination() -> None:
    with Termination().by_sigterm():
        assert prefects_runner_spares_this_process()
    assert not prefects_runner_spares_this_process()


def test_prefect_still_kills_a_process_whose_handler_it_does_not_know() -> None:
    """When this fails, `Termination.by_sigterm` need not replace `_prefect_sigterm_handler`."""
    with own_sigterm_handler():
        assert not prefects_runner_spares_this_process()


@pytest.fixture
def without_version_check() -> Iterator[None]:
    """No request is made: there is no server."""
    with temporary_settings(
        {
            PREFECT_API_URL: "http://127.0.0.1:9/api",
            PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,
        }
    ):
        yield


@pytest.mark.usefixtures("without_version_check")
def test_prefect_finds_the_one_client_of_a_flow_process() -> None:
    with client_context() as clients:
        assert get_client(sync_client=True) is clients.client


def test_prefects_engine_still_makes_the_requests_that_our_client_changes() -> None:
    assert_overrides(FlowClient, SyncPrefectClient, {"read_server_default_result_storage", "update_flow_run"})
    assert "self.client.update_flow_run(" in inspect.getsource(FlowRunEngine.initialize_run)
    assert "client.read_server_default_result_storage()" in inspect.getsource(results)


@pytest.mark.usefixtures("without_version_check")
def test_prefect_still_does_not_find_a_client_that_has_settings() -> None:
    """When this fails, `client_context` can call `SyncClientContext` as it is meant to be called."""
    with SyncClientContext(httpx_settings={"timeout": 7}) as clients:
        assert get_client(sync_client=True) is not clients.client


def test_settings_of_a_flow_process_leave_out_what_it_does_not_need() -> None:
    settings = Inherited({}, root_settings_context()).context().settings

    assert settings.flows.heartbeat_frequency is None
    assert not settings.client.server_version_check_enabled
    assert settings.client.retry_extra_codes == {500}


def test_the_engine_runs_a_flow_that_is_loaded_already() -> None:
    assert {"flow_run", "return_type"} <= inspect.signature(run_flow).parameters.keys()
    assert list(inspect.signature(handle_engine_signals).parameters) == ["flow_run_id"]


def test_the_variable_that_names_the_job_of_a_container() -> None:
    """`flows.container` reads it."""
    flow_run = FlowRun(flow_id=uuid4())
    variables = BaseJobConfiguration._base_flow_run_environment(flow_run)
    assert variables["PREFECT__FLOW_RUN_ID"] == str(flow_run.id)


@pytest.mark.parametrize(("largest", "is_rejected"), [(21, False), (20, True)])
def test_prefect_measures_parameters_as_the_facade_does(largest: int, *, is_rejected: bool) -> None:
    """`api.jobs.submissions` counts the characters of compact JSON, in which an ü is six."""
    parameters = {"config": ["ü"]}
    assert len(json.dumps(parameters, separators=(",", ":"))) == 21
    if is_rejected:
        with pytest.raises(ValueError, match="must be less than"):
            validate_parameter_size(parameters, largest)
    else:
        validate_parameter_size(parameters, largest)
