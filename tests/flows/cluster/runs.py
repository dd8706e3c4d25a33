"""Executes workflows on a cluster, and looks at what they leave there."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.contract.executors import ClusterExecutor
from flows.engines.engine import Execution
from flows.engines.snakemake import SnakemakeEngine
from flows.environments.environment import Environment
from flows.snakemake_process.events import AttemptFinished, AttemptSubmitted, WorkflowEvent
from flows.workspace.workspace import Workspace
from tests.flows.cluster.slurm import Slurm
from tests.flows.executions import NO_SOFTWARE, React, Run, staged, write_workflow

RESOURCES: Mapping[str, int | str] = {"mem_mb": 400, "runtime": 5}


@contextmanager
def clients_of(cluster: Slurm) -> Iterator[None]:
    """This process finds the commands of the cluster, and its jobs do."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in cluster.variables.items():
            environment.setenv(name, value)
        yield


def on_slurm(**fields: Any) -> ClusterExecutor:
    resources = {**RESOURCES, **fields.pop("default_resources", {})}
    return ClusterExecutor(executor="slurm", default_resources=resources, **fields)


def execution_on(
    cluster: ClusterExecutor, environment: Environment, workspace: Workspace, snakefile: str, **fields: Any
) -> Execution:
    workflow = write_workflow(workspace.home.parent / f"workflow-{workspace.job_id}", snakefile)
    engine = SnakemakeEngine(environment, NO_SOFTWARE, cluster=cluster)
    return engine.start(staged(workspace, workflow, **fields), workspace)


def run_on(
    cluster: ClusterExecutor,
    environment: Environment,
    workspace: Workspace,
    snakefile: str,
    react: React | None = None,
    **fields: Any,
) -> Run:
    """Execute a workflow to its end; `react` sees every event as it happens."""
    events: list[WorkflowEvent] = []
    with execution_on(cluster, environment, workspace, snakefile, **fields) as execution:
        for event in execution.events():
            events.append(event)
            if react is not None:
                react(event, execution)
    return Run(workspace, events)


def submissions(run: Run, name: str) -> list[AttemptSubmitted]:
    """Of the rule job, one for each attempt."""
    job_id = run.plan[name].job_id
    by_attempt = {event.attempt: event for event in run.of(AttemptSubmitted) if event.job_id == job_id}
    return list(by_attempt.values())


def last_end(run: Run, name: str) -> AttemptFinished:
    return run.finished(name)[-1]


def written(workspace: Workspace, name: str) -> str:
    return Path(workspace.work, name).read_text()
