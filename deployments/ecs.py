"""Jobs as ECS tasks: the settings of the work pool, and its base job template for Prefect's worker.

The worker is Prefect's own (from prefect-aws), as `deployments.ecs_worker` starts it.
"""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ECS = "ecs"
"""The work pool, and the type of its worker."""

_TEMPLATE_FILE = Path(__file__).with_name("ecs-work-pool.yaml")


def _split_at_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Ids = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_at_commas)]
"""Ids of AWS resources, separated by commas."""


class ClusterSettings(BaseSettings):
    """Which ECS tasks are jobs of this service."""

    model_config = SettingsConfigDict(
        env_prefix="JOBS_ECS_",
        frozen=True,
    )

    cluster: str = Field(min_length=1, description="Name or ARN of the ECS cluster.")
    task_definition: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,255}$",
        description="Family of the task definition that jobs run in; its newest revision is used.",
    )


class WorkPoolSettings(ClusterSettings):
    """How Prefect's worker starts the task of a job."""

    subnets: Ids = Field(min_length=1, max_length=16, description="Subnets of the tasks.")
    security_groups: Ids = Field(min_length=1, max_length=5, description="Security groups of the tasks.")
    assign_public_ip: bool = Field(
        default=False, description="Whether tasks get public addresses; only for subnets without NAT."
    )


def base_job_template(settings: WorkPoolSettings) -> dict[str, Any]:
    """`ecs-work-pool.yaml`, filled in."""
    template: dict[str, Any] = yaml.safe_load(_TEMPLATE_FILE.read_text())
    configuration = template["job_configuration"]
    configuration["cluster"] = settings.cluster
    request = configuration["task_run_request"]
    request["cluster"] = settings.cluster
    request["taskDefinition"] = settings.task_definition
    request["networkConfiguration"]["awsvpcConfiguration"] = {
        "subnets": list(settings.subnets),
        "securityGroups": list(settings.security_groups),
        "assignPublicIp": "ENABLED" if settings.assign_public_ip else "DISABLED",
    }
    return template
