"""A group whose rule jobs run on SLURM, from the jobs API to the cluster's queue."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from deployments.demo import EXAMPLE
from deployments.local import LocalStack
from tests.conftest import ENVIRONMENTS, local_settings
from tests.flows.cluster.slurm import PROGRAMS, Slurm, missing, slurm
from tests.flows.executions import write_workflow
from tests.support import WORKFLOWS, JobsClient, flow_process_of, processes_of, wait_until

GROUP = "cluster"
EXECUTOR = {"executor": "slurm", "default_resources": {"mem_mb": 400, "runtime": 5}, "cancel_seconds": 20}
SLEEPER = """
    rule all:
        input: expand("{n}.txt", n=range(3))
    rule sleep:
        output: "{n}.txt"
        shell: "sleep 300; touch {output}"
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if os.geteuid() != 0 or (lacking := missing(PROGRAMS)):
        pytest.skip("only root can start this SLURM" if os.geteuid() else f"it lacks {', '.join(lacking)}")
    with slurm(tmp_path_factory.mktemp("slurm") / "cluster") as running:
        yield running


@pytest.fixture(scope="module")
def cluster_stack(cluster: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack of its own: its worker is killed."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in cluster.variables.items():
            environment.setenv(name, value)
        environment.setenv("JOBS_ENVIRONMENTS_DIRECTORY", str(ENVIRONMENTS))
        environment.setenv("JOBS_EXECUTORS", json.dumps({GROUP: EXECUTOR}))
        environment.setenv("JOBS_GROUPS", json.dumps({GROUP: {"priority": 3}}))
        roots = [WORKFLOWS, EXAMPLE, tmp_path_factory.getbasetemp()]
        with LocalStack(local_settings(tmp_path_factory.mktemp("home"), roots)) as running:
            yield running


@pytest.fixture
def prefect_api(cluster_stack: LocalStack) -> Iterator[httpx.Client]:
    user, _, password = cluster_stack.auth_string.partition(":")
    url = f"{cluster_stack.settings.prefect_url}/api"
    with httpx.Client(base_url=url, auth=(user, password), timeout=30) as http:
        yield http


@pytest.fixture
def jobs(cluster_stack: LocalStack, cluster: Slurm) -> Iterator[JobsClient]:
    """Fails when a test leaves a job on the cluster."""
    with httpx.Client(base_url=cluster_stack.settings.api_url, timeout=30) as http:
        yield JobsClient(http)
    wait_until(lambda: cluster.queue() == [], "the queue of the cluster is empty", 30)


def submit(jobs: JobsClient, directory: Path, snakefile: str, **fields: object) -> str:
    workflow = write_workflow(directory / "workflow", snakefile)
    return jobs.submit(workflow={"path": str(workflow)}, group=GROUP, **fields)


def running(jobs: JobsClient, job_id: str) -> None:
    wait_until(lambda: "running" in jobs.statuses(job_id).values(), "a rule job runs on the cluster")


@pytest.mark.parametrize(
    ("workflow", "environment"),
    [(WORKFLOWS / "features", None), (EXAMPLE, {"file": "requirements.txt"})],
    ids=["features", "example"],
)
def test_a_workflow_gives_there_what_it_gives_here(
    jobs: JobsClient, workflow: Path, environment: dict[str, str] | None
) -> None:
    fields = {"workflow": {"path": str(workflow)}, "environment": environment, "cores": 2}
    here, there = jobs.submit(**fields), jobs.submit(**fields, group=GROUP)
    for job_id in (here, there):
        jobs.wait(job_id, "completed", seconds=240)

    def checksums(job_id: str) -> dict[str, str]:
        items = jobs.items(f"/jobs/{job_id}/outputs")
        return {item["path"]: item["sha256"] for item in items}

    assert checksums(there) == checksums(here) != {}
    assert jobs.statuses(there) == jobs.statuses(here)
    tasks = jobs.items(f"/jobs/{there}/tasks")
    assert {task["host"] for task in tasks} - {None}
    assert all(task["external_id"] for task in tasks if task["host"])


def test_a_failed_rule_job_names_its_place_on_the_cluster(jobs: JobsClient, tmp_path: Path) -> None:
    snakefile = """
        rule all:
            output: "never.txt"
            shell: "echo out of luck; exit 3"
    """
    job_id = submit(jobs, tmp_path, snakefile)
    error = jobs.wait(job_id, "failed")["error"]
    (task,) = jobs.items(f"/jobs/{job_id}/tasks")
    place = f"It was job {task['external_id']} of slurm on {task['host']}."
    assert error["message"].startswith(f"Rule job all failed: Its command ended with exit code 3. {place}")
    assert "out of luck" in error["message"]


def test_what_only_the_operator_sets_is_refused_by_name(jobs: JobsClient, tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path / "workflow", SLEEPER)
    options = {"default_resources": {"slurm_account": "theirs"}}
    body = {"workflow": {"path": str(workflow)}, "group": GROUP, "options": options}
    answer = jobs.http.post("/jobs", json=body)
    assert answer.status_code == 422
    assert "only the operator sets these resources of slurm: slurm_account" in answer.json()["detail"]


def test_a_cancel_empties_the_queue(jobs: JobsClient, tmp_path: Path, cluster: Slurm) -> None:
    job_id = submit(jobs, tmp_path, SLEEPER)
    running(jobs, job_id)
    jobs.http.post(f"/jobs/{job_id}/cancel")
    jobs.wait(job_id, "cancelled")
    assert cluster.queue() == []


def test_a_flow_process_that_is_killed_leaves_nothing_on_the_cluster(
    jobs: JobsClient, tmp_path: Path, cluster: Slurm, prefect_api: httpx.Client
) -> None:
    job_id = submit(jobs, tmp_path, SLEEPER)
    running(jobs, job_id)
    flow_process_of(prefect_api, job_id).kill()
    jobs.wait(job_id, "failed")
    assert cluster.queue() == []


def test_a_new_worker_goes_on_with_what_runs_on_the_cluster(
    jobs: JobsClient, tmp_path: Path, cluster_stack: LocalStack
) -> None:
    permit = tmp_path / "permit"
    snakefile = """
        rule all:
            output: "done.txt"
            shell: "until test -e {config[permit]}; do sleep 0.2; done; touch {output}"
    """
    job_id = submit(jobs, tmp_path, snakefile, config={"permit": str(permit)})
    running(jobs, job_id)
    os.kill(cluster_stack.worker.pid, signal.SIGKILL)
    cluster_stack.restart_worker()
    permit.touch()
    jobs.wait(job_id, "completed")


def test_when_all_have_died_the_next_worker_empties_the_queue(
    jobs: JobsClient,
    tmp_path: Path,
    cluster: Slurm,
    cluster_stack: LocalStack,
    prefect_api: httpx.Client,
) -> None:
    job_id = submit(jobs, tmp_path, SLEEPER)
    running(jobs, job_id)
    flow_process = flow_process_of(prefect_api, job_id)
    snakemake = min(processes_of(job_id), key=psutil.Process.create_time)
    for process in (psutil.Process(cluster_stack.worker.pid), flow_process, snakemake):
        process.kill()
    cluster_stack.restart_worker()
    jobs.wait(job_id, "failed")
    assert cluster.queue() == []
