"""A SLURM for all tests of this room, and an environment that has the executor plugins."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.contract.environments import EnvironmentSettings
from flows.environments.environment import Environment
from flows.environments.making import Environments
from tests.conftest import ENVIRONMENTS
from tests.flows.cluster.slurm import ACCOUNTING, PROGRAMS, Slurm, missing, slurm

PLUGINS = ("snakemake-executor-plugin-slurm", "snakemake-executor-plugin-cluster-generic")


@pytest.fixture(scope="package")
def environment() -> Environment:
    """With the executor plugins, as a worker makes it for the jobs of a group with a cluster."""
    environments = Environments(EnvironmentSettings(environments_directory=ENVIRONMENTS), ENVIRONMENTS, print)
    return environments.get(environments.wanted(None, more=PLUGINS))


@pytest.fixture(scope="package")
def accounting_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """SLURM with accounting, which most clusters have."""
    yield from _running(tmp_path_factory.mktemp("slurm") / "cluster", accounting=True)


@pytest.fixture(scope="package")
def bare_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """SLURM without accounting."""
    yield from _running(tmp_path_factory.mktemp("slurm") / "cluster", accounting=False)


def _running(directory: Path, *, accounting: bool) -> Iterator[Slurm]:
    programs = PROGRAMS + (ACCOUNTING if accounting else ())
    if lacking := missing(programs):
        pytest.skip(f"this machine has no {', '.join(lacking)}: see tests/flows/software/install.sh")
    if os.geteuid() != 0:
        pytest.skip("only root can start this SLURM")
    with slurm(directory, accounting=accounting) as running:
        yield running
