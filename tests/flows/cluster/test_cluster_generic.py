"""A cluster of which only its commands are known: SLURM's here, without the plugin for SLURM."""

import os
import signal
from collections.abc import Iterator

import pytest

from flows.contract.executors import ClusterExecutor
from flows.engines.engine import Execution
from flows.environments.environment import Environment
from flows.snakemake_process.events import AttemptStarted, Outcome, WorkflowEvent
from flows.workspace.workspace import Workspace
from tests.flows.cluster.runs import clients_of, last_end, run_on, submissions
from tests.flows.cluster.slurm import Slurm
from tests.flows.cluster.test_slurm import TWO_LEVELS, driver_of
from tests.flows.grammar import assert_well_told
from tests.support import wait_until

CLUSTER = ClusterExecutor(
    executor="cluster-generic",
    settings={
        "submit_cmd": "sbatch --parsable --mem {resources.mem_mb} -c {threads} -o /dev/null",
        "cancel_cmd": "scancel",
    },
    default_resources={"mem_mb": 400},
)
SLEEPER = """
    rule all:
        input: expand("{n}.txt", n=range(3))
    rule sleep:
        output: "{n}.txt"
        shell: "sleep 300; touch {output}"
"""


@pytest.fixture(autouse=True)
def cluster(accounting_slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """Its commands are visible in the room of a job because the operator says so."""
    monkeypatch.setenv("JOBS_VISIBLE_VARIABLES", "SLURM_CONF")
    with clients_of(accounting_slurm):
        yield accounting_slurm


def test_a_workflow_runs_there_and_says_where(environment: Environment, workspace: Workspace) -> None:
    run = run_on(CLUSTER, environment, workspace, TWO_LEVELS)
    assert run.exit_code == 0
    assert_well_told(run.events)
    (submitted,), (started,) = submissions(run, "greet"), run.started("greet")
    assert started.external_id == submitted.external_id is not None
    assert started.host is not None


def test_a_rule_job_that_fails_says_so(environment: Environment, workspace: Workspace) -> None:
    snakefile = """
        rule all:
            output: "never.txt"
            shell: "echo no luck; exit 4"
    """
    run = run_on(CLUSTER, environment, workspace, snakefile)
    assert (last_end(run, "all").outcome, last_end(run, "all").exit_code) == (Outcome.FAILED, 4)
    assert "no luck" in run.output_of("all")


def wait_for_end_of_all(cluster: Slurm) -> None:
    """Nobody but the cluster knows when a job has ended that it was asked to end."""
    wait_until(lambda: cluster.queue() == [], "the queue is empty", 20)


def test_a_cancel_empties_the_queue(environment: Environment, workspace: Workspace, cluster: Slurm) -> None:
    def cancel(event: WorkflowEvent, execution: Execution) -> None:
        if isinstance(event, AttemptStarted):
            execution.terminate()

    run = run_on(CLUSTER, environment, workspace, SLEEPER, cancel)
    assert run.exit_code == 1
    wait_for_end_of_all(cluster)


def test_a_snakemake_that_is_killed_leaves_nothing(
    environment: Environment, workspace: Workspace, cluster: Slurm
) -> None:
    def kill(event: WorkflowEvent, _: Execution) -> None:
        if isinstance(event, AttemptStarted):
            os.kill(driver_of(workspace).pid, signal.SIGKILL)

    run = run_on(CLUSTER, environment, workspace, SLEEPER, kill)
    assert run.exit_code == -signal.SIGKILL
    wait_for_end_of_all(cluster)
