"""The engine that a job names."""

from typing import assert_never

from flows.contract.spec import EngineName
from flows.engines.engine import Engine
from flows.engines.mock import MockEngine
from flows.engines.snakemake import SnakemakeEngine


def engine_for(name: EngineName) -> Engine:
    match name:
        case EngineName.SNAKEMAKE:
            return SnakemakeEngine()
        case EngineName.MOCK:
            return MockEngine()
        case _:
            assert_never(name)
