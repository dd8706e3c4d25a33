"""Prefect's ECS worker, whose tasks have a token of their one job instead of Prefect's password.

    python -m deployments.ecs_worker [OPTIONS OF `prefect worker start`]

The token stands in the overrides of RunTask, where everybody can read it who may describe the task.
"""

import runpy
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from prefect.client.schemas.objects import FlowRun
from prefect_aws.workers.ecs_worker import ECSJobConfiguration, ECSWorker
from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from deployments.ecs import ECS
from flows.contract.job_tokens import BATCH_PATH, GATEWAY_PATH, STORAGE_PATH, USER, make_token
from flows.worker.job_configuration import with_allowed_variables

_OF_THE_WORKER = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")


class TaskSettings(BaseSettings):
    """How the task of a job reaches the service."""

    model_config = SettingsConfigDict(env_prefix="JOBS_", frozen=True, hide_input_in_errors=True)

    gateway_secret: SecretStr = Field(
        min_length=32, description="The secret behind the tokens of jobs; the same as for the API."
    )
    ecs_gateway_url: HttpUrl = Field(
        description="Address of the facade in the network of the tasks, such as "
        "`http://facade.jobs.internal:8000`.",
    )
    ecs_token_days: float = Field(
        default=30,
        gt=0,
        le=366,
        description="How long the token of a job is valid: no job can run for longer.",
    )

    def environment_of(self, flow_run: FlowRun) -> dict[str, str]:
        """Variables of the task of this job."""
        lifetime = timedelta(days=self.ecs_token_days)
        token = make_token(self.gateway_secret.get_secret_value(), flow_run.id, datetime.now(UTC), lifetime)
        gateway = f"{str(self.ecs_gateway_url).rstrip('/')}{GATEWAY_PATH}"
        return {
            "PREFECT_API_URL": gateway,
            "PREFECT_API_AUTH_STRING": f"{USER}:{token}",
            "JOBS_STORAGE_CREDENTIALS_URL": f"{gateway}{STORAGE_PATH}",
            "JOBS_BATCH_CREDENTIALS_URL": f"{gateway}{BATCH_PATH}",
        }


class JobTask(ECSJobConfiguration):
    """What RunTask is asked for. The task gets nothing of the worker's that would open more than one job."""

    @classmethod
    async def resolve_for_flow_run(cls, flow_run: FlowRun, **context: Any) -> Self:
        return await super().resolve_for_flow_run(with_allowed_variables(flow_run), **context)

    def prepare_for_flow_run(self, flow_run: FlowRun, *arguments: Any, **options: Any) -> None:
        super().prepare_for_flow_run(flow_run, *arguments, **options)
        settings = TaskSettings()  # type: ignore[call-arg]  # from the environment
        for name in _OF_THE_WORKER:
            self.env.pop(name, None)
        self.env.update(settings.environment_of(flow_run))


def main() -> None:
    TaskSettings()  # type: ignore[call-arg]  # so that a missing one is reported now, not with the first job
    ECSWorker.job_configuration = JobTask
    sys.argv = ["prefect", "worker", "start", "--type", ECS, "--pool", ECS, *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    main()
