"""Selects the engine that a job names."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import assert_never

from flows.contract.executors import ClusterExecutor
from flows.contract.spec import EngineName
from flows.engines.engine import Engine
from flows.engines.mock import MockEngine
from flows.engines.snakemake import SnakemakeEngine
from flows.engines.software import Software
from flows.environments.environment import Environment


def engine_for(
    name: EngineName,
    environment: Environment | None,
    software: Software,
    secrets: Mapping[str, str] = MappingProxyType({}),
    cluster: ClusterExecutor | None = None,
) -> Engine:
    """`environment` is that of the workflow; the mock engine needs none. Rule jobs run on `cluster`."""
    match name:
        case EngineName.SNAKEMAKE:
            if environment is None:
                raise ValueError("Snakemake needs an environment")
            return SnakemakeEngine(environment, software, secrets, cluster=cluster)
        case EngineName.MOCK:
            return MockEngine()
        case _:
            assert_never(name)
