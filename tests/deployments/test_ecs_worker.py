"""The task of a job gets a token of its own job, and nothing that opens more."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect_aws.workers.ecs_worker import ECSJobConfiguration
from pydantic import ValidationError

from deployments.ecs_worker import JobTask, TaskSettings
from flows.contract.job_tokens import flow_run_of
from flows.worker.job_configuration import with_allowed_variables

SECRET = "a secret of this service, long enough"
PASSWORD = "operator:the-password-of-prefect"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_GATEWAY_SECRET", SECRET)
    monkeypatch.setenv("JOBS_ECS_GATEWAY_URL", "http://facade.jobs.internal:8000")
    monkeypatch.setenv("JOBS_ECS_TOKEN_DAYS", "2")


def environment_of(flow_run: FlowRun, kind: type[ECSJobConfiguration] = JobTask) -> dict[str, Any]:
    """Of the task of this job, as the worker asks for it."""
    of_worker = {PREFECT_API_URL: "http://server:4200/api", PREFECT_API_AUTH_STRING: PASSWORD}
    task = kind(task_run_request={"taskDefinition": "jobs"})
    with temporary_settings(of_worker):
        task.prepare_for_flow_run(flow_run)
    return task.env


def test_it_reaches_the_service_by_the_gateway_with_a_token_of_its_job() -> None:
    flow_run = FlowRun(flow_id=uuid4())

    environment = environment_of(flow_run)

    assert environment["PREFECT_API_URL"] == "http://facade.jobs.internal:8000/prefect-gateway"
    storage = "http://facade.jobs.internal:8000/prefect-gateway/storage-credentials"
    assert environment["JOBS_STORAGE_CREDENTIALS_URL"] == storage
    user, _, token = environment["PREFECT_API_AUTH_STRING"].partition(":")
    assert user == "job"
    for days, expected in ((1.9, flow_run.id), (2.1, None)):
        assert flow_run_of(token, SECRET, datetime.now(UTC) + timedelta(days=days)) == expected


def test_it_gets_neither_the_password_nor_the_secret() -> None:
    flow_run = FlowRun(flow_id=uuid4())

    assert PASSWORD in environment_of(flow_run, ECSJobConfiguration).values(), "Prefect copies it no more"
    assert not {PASSWORD, SECRET} & set(environment_of(flow_run).values())


def test_job_variables_of_a_run_give_its_task_a_size_and_no_other_service() -> None:
    wanted = {"cpu": 2048, "env": {"JOBS_STORAGE_URL": "s3://elsewhere", "GREETING": "hello"}}

    run = with_allowed_variables(FlowRun(flow_id=uuid4(), job_variables=wanted))

    assert run.job_variables == {"cpu": 2048, "env": {"GREETING": "hello"}}


@pytest.mark.parametrize("missing", ["JOBS_GATEWAY_SECRET", "JOBS_ECS_GATEWAY_URL"])
def test_a_worker_without_a_gateway_does_not_start(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delenv(missing)

    with pytest.raises(ValidationError, match=missing.removeprefix("JOBS_").lower()):
        TaskSettings()  # type: ignore[call-arg]  # from the environment
