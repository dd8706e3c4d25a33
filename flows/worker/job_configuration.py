"""What a flow run may change of the process that runs it: some environment variables, and nothing else."""

import logging
from collections.abc import Mapping
from typing import Any, Self

from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseJobConfiguration

from flows.contract.variables import is_settable_by_run

logger = logging.getLogger("prefect.workers.snakemake")

_ENV = "env"
_NESTED_ENV = f"{_ENV}."
"""Prefect reads `env.NAME` as the variable NAME."""


class JobConfiguration(BaseJobConfiguration):
    """Keeps the operator's settings: a deployment may set any variable, a run none of the service."""

    @classmethod
    async def resolve_for_flow_run(cls, flow_run: FlowRun, **context: Any) -> Self:
        return await super().resolve_for_flow_run(with_allowed_variables(flow_run), **context)


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
