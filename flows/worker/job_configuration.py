"""The variables of a flow process: those of its deployment, and those that the flow run may set."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse

from flows.contract.variables import is_settable_by_run

logger = logging.getLogger("prefect.workers.snakemake")

_ENV = "env"
_NESTED_ENV = f"{_ENV}."
"""Prefect reads `env.NAME` as the variable NAME."""


def job_variables_of(flow_run: FlowRun, deployment: DeploymentResponse | None) -> dict[str, Any]:
    """Those of the deployment, which may set any variable, under those that a run may set."""
    of_deployment = (deployment and deployment.job_variables) or {}
    of_run = with_allowed_variables(flow_run).job_variables or {}
    env = {**(of_deployment.get(_ENV) or {}), **of_run.get(_ENV, {})}
    return {**of_deployment, **of_run, _ENV: env}


class Deployments:
    """Those of the jobs that were found together, each read once: as it is now, after they were submitted."""

    def __init__(self) -> None:
        self._reading: dict[UUID, asyncio.Task[DeploymentResponse]] = {}

    async def read(self, client: PrefectClient, deployment_id: UUID | None) -> DeploymentResponse | None:
        """None without an id. Raises `ObjectNotFound`, and httpx's errors."""
        if deployment_id is None:
            return None
        if deployment_id not in self._reading:
            self._reading[deployment_id] = asyncio.create_task(client.read_deployment(deployment_id))
        return await asyncio.shield(self._reading[deployment_id])


def with_allowed_variables(flow_run: FlowRun) -> FlowRun:
    """The run without those of its own job variables that would change the service."""
    wanted = flow_run.job_variables or {}
    env = _variables_in(wanted)
    allowed = {name: value for name, value in env.items() if is_settable_by_run(name)}
    if refused := sorted(env.keys() - allowed.keys()):
        logger.warning(
            "Job %s: its job variables can't set %s: they belong to the service.",
            flow_run.id,
            ", ".join(map(repr, refused)),
        )
    others = {
        name: value for name, value in wanted.items() if name != _ENV and not name.startswith(_NESTED_ENV)
    }
    return flow_run.model_copy(update={"job_variables": others | ({_ENV: allowed} if allowed else {})})


def _variables_in(job_variables: Mapping[str, Any]) -> dict[str, Any]:
    """The environment variables in a run's job variables, in either of Prefect's notations."""
    env = job_variables.get(_ENV)
    nested = {
        name.removeprefix(_NESTED_ENV): value
        for name, value in job_variables.items()
        if name.startswith(_NESTED_ENV)
    }
    return nested | (env if isinstance(env, dict) else {})
