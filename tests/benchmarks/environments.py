"""What environments of workflows cost: to make one, to start the first job in one, to keep one warm."""

import tempfile
import time
from pathlib import Path

import psutil
import pytest

from deployments.local import LocalStack
from flows.contract.environments import EnvironmentSettings
from flows.contract.spec import EnvironmentSpec
from flows.environments.environment import Environment
from flows.environments.making import Environments
from tests.benchmarks.processes import zygotes_of
from tests.benchmarks.rows import Report, Row, median, seconds
from tests.benchmarks.workflows import bare, one_rule_workflow, submitted
from tests.support import JobsClient

SNAKEMAKE_AND_PANDAS = EnvironmentSpec(packages=("snakemake ~= 9.27", "pandas"))


def compare(report: Report, stack: LocalStack, jobs: JobsClient, roots: Path, trials: int) -> None:
    environment = _made(stack.settings.home)
    report.add(Row("an environment of snakemake and pandas, from uv's cache", *_making(trials), unit="s"))
    _first_jobs(report, stack, jobs, roots, environment, trials)
    (zygote,) = zygotes_of(stack, str(environment.python))
    unshared = zygote.memory_full_info().uss / 1e6
    report.add(Row("memory of a further warm environment, unshared", unshared, 110, unit="MB"))


def _made(home: Path) -> Environment:
    """The environment in the service's own directory, where the job finds it."""
    environments = Environments(EnvironmentSettings(), home)
    return environments.get(environments.wanted(SNAKEMAKE_AND_PANDAS))


def _making(trials: int) -> tuple[float, float]:
    """Median seconds where uv's cache has the packages already, and the target."""
    took = []
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as variables:
        variables.setenv("UV_CACHE_DIR", str(Path(directory) / "cache"))
        for number in range(trials + 1):
            settings = EnvironmentSettings(environments_directory=Path(directory, str(number)))
            environments = Environments(settings, Path(directory))
            began = time.monotonic()
            environments.get(environments.wanted(SNAKEMAKE_AND_PANDAS))
            took.append(time.monotonic() - began)
    return median(took[1:]), 6  # the first has filled the cache


def _first_jobs(
    report: Report,
    stack: LocalStack,
    jobs: JobsClient,
    roots: Path,
    environment: Environment,
    trials: int,
) -> None:
    """A job in an environment that is made, and has no process that waits for it."""
    spec = SNAKEMAKE_AND_PANDAS.model_dump(mode="json", exclude_defaults=True)
    with one_rule_workflow(roots) as directory:
        submitted(jobs, workflow={"path": directory}, environment=spec)  # writes the byte code
        ours, theirs = [], []
        for _ in range(trials):
            for zygote in zygotes_of(stack, str(environment.python)):
                zygote.kill()
                psutil.wait_procs([zygote], timeout=5)
            ours.append(submitted(jobs, workflow={"path": directory}, environment=spec).wall)
            theirs.append(bare(Path(directory), 1).wall)
    ratio = median([our / their for our, their in zip(ours, theirs, strict=True)])
    report.add(Row("first job in a cold environment", ratio, 1.3, ours=seconds(ours), theirs=seconds(theirs)))
