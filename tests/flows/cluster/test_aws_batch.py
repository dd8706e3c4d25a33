"""Rule jobs as AWS Batch jobs, whose nodes share nothing with the head but S3: on moto's server."""

from collections.abc import Iterator

import pytest

from flows.contract.environments import EnvironmentSettings
from flows.contract.executors import ClusterExecutor
from flows.engines.engine import Execution
from flows.environments.environment import Environment
from flows.environments.making import Environments
from flows.snakemake_process.events import AttemptSubmitted, Outcome, WorkflowEvent
from flows.workspace.workspace import Workspace
from tests.conftest import ENVIRONMENTS
from tests.flows.cluster.batch import REGION, Batch, batch
from tests.flows.cluster.runs import last_end, run_on, submissions
from tests.support import wait_until

DEFINITION = "rule-jobs-of-large"


@pytest.fixture(scope="module")
def environment() -> Environment:
    """With the executor plugin; the default environment has that for S3."""
    environments = Environments(EnvironmentSettings(environments_directory=ENVIRONMENTS), ENVIRONMENTS, print)
    return environments.get(environments.wanted(None, more=("snakemake-executor-plugin-aws-batch",)))


@pytest.fixture(scope="module")
def service(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    with (
        batch(tmp_path_factory.mktemp("batch") / "jobs", environment) as running,
        pytest.MonkeyPatch.context() as variables,
    ):
        for name, value in running.variables.items():
            variables.setenv(name, value)
        variables.setenv("JOBS_VISIBLE_VARIABLES", "AWS_*")
        yield running


@pytest.fixture(scope="module")
def cluster(service: Batch) -> ClusterExecutor:
    settings: dict[str, str | int | float | bool] = {
        "region": REGION,
        "job_queue": service.create_queue(),
        "job_role": "arn:aws:iam::123456789012:role/rule-jobs",
    }
    return ClusterExecutor(
        executor="aws-batch",
        settings=settings,
        default_resources={"mem_mb": 400},
        container_image="rule-jobs:1",
        cancel_seconds=20,
    )


@pytest.fixture(scope="module")
def with_definition(service: Batch, cluster: ClusterExecutor) -> ClusterExecutor:
    """A cluster whose rule jobs all have one job definition."""
    service.register(DEFINITION)
    return cluster.model_copy(update={"job_definition": DEFINITION, "container_image": None})


@pytest.fixture
def storage(service: Batch) -> dict[str, object]:
    return {"provider": "s3", "prefix": f"s3://{service.bucket}"}


def test_results_go_through_the_storage(
    environment: Environment,
    workspace: Workspace,
    cluster: ClusterExecutor,
    storage: dict[str, object],
    service: Batch,
) -> None:
    snakefile = """
        rule all:
            input: "copied.txt"
            output: "seen.txt"
            localrule: True
            shell: "cp {input} {output}"
        rule write:
            output: "written.txt"
            shell: "echo written > {output}"
        rule copy:
            input: "written.txt"
            output: "copied.txt"
            shell: "cp {input} {output}"
    """
    run = run_on(cluster, environment, workspace, snakefile, default_storage=storage)
    assert run.exit_code == 0
    assert set(run.outcomes().values()) == {Outcome.SUCCEEDED}
    assert submissions(run, "write")[0].external_id
    assert service.text_of("copied.txt") == "written\n"


def test_a_rule_job_that_fails_says_batchs_word(
    environment: Environment, workspace: Workspace, cluster: ClusterExecutor, storage: dict[str, object]
) -> None:
    snakefile = """
        rule write:
            output: "never.txt"
            shell: "exit 5"
    """
    run = run_on(cluster, environment, workspace, snakefile, default_storage=storage)
    assert run.exit_code == 1
    assert "AWS Batch job failed" in last_end(run, "write").message


def test_a_cancel_ends_the_jobs_of_batch(
    environment: Environment,
    workspace: Workspace,
    cluster: ClusterExecutor,
    storage: dict[str, object],
    service: Batch,
) -> None:
    snakefile = """
        rule write:
            output: "never.txt"
            shell: "sleep 300"
    """

    def cancel(event: WorkflowEvent, execution: Execution) -> None:
        if isinstance(event, AttemptSubmitted):
            wait_until(lambda: "RUNNING" in service.statuses(), "it runs")
            execution.terminate()

    run = run_on(cluster, environment, workspace, snakefile, cancel, default_storage=storage)
    assert run.exit_code == 1
    wait_until(lambda: set(service.statuses()) <= {"SUCCEEDED", "FAILED"}, "nothing runs", 20)


def test_a_rule_job_that_no_container_holds_fails(
    environment: Environment,
    workspace: Workspace,
    with_definition: ClusterExecutor,
    storage: dict[str, object],
) -> None:
    snakefile = """
        rule write:
            output: "never.txt"
            resources: mem_mb=200000
            shell: "touch {output}"
    """
    run = run_on(with_definition, environment, workspace, snakefile, default_storage=storage)
    assert run.exit_code == 1
    assert "no container with 1 cores and 200000 MB" in workspace.snakemake_log.read_text()
