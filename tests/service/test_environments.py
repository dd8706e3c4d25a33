"""Jobs in environments of their own, as a client sees them."""

import fcntl
import time
from pathlib import Path

import httpx
import pytest
import yaml

from deployments.local import PROJECT, LocalStack
from flows.contract.environments import EnvironmentSettings
from flows.contract.spec import EnvironmentSpec
from flows.environments.making import Environments
from tests.conftest import ENVIRONMENTS, local_settings
from tests.flows.archives import workflow
from tests.support import JobsClient, wait_until

SNAKEFILE = """
import house_greeter, snakemake
rule greet:
    output: "greeting.txt"
    shell: "python -c 'import house_greeter as g; print(g.GREETING)' > {output}"
"""
FILES = {
    "Snakefile": SNAKEFILE,
    "requirements.txt": "# what the Snakefile imports\nhouse_greeter == 1.0\nsnakemake ~= 9.27\n",
}


def bundle(jobs: JobsClient, files: dict[str, str]) -> dict[str, str]:
    answer = jobs.http.put("/bundles", content=workflow(files)).raise_for_status().json()
    return {"bundle": answer["bundle"]}


def test_a_snakefile_that_imports_what_the_service_lacks_runs_in_its_own_environment(
    jobs: JobsClient,
) -> None:
    source = bundle(jobs, FILES)
    job_id = jobs.submit(workflow=source, environment={"file": "requirements.txt"})
    job = jobs.wait(job_id, "completed", seconds=180)
    assert job["snakemake_version"].startswith("9.27")
    assert job["phase"] is None
    assert jobs.http.get(f"/jobs/{job_id}/outputs/greeting.txt").text == "Moin\n"
    assert f"Snakemake {job['snakemake_version']} on Python 3" in jobs.log(job_id)


def test_without_it_the_error_names_the_module_and_how_to_add_it(jobs: JobsClient) -> None:
    job = jobs.wait(jobs.submit(workflow=bundle(jobs, FILES)), "failed")
    assert job["error"]["kind"] == "workflow"
    assert "No module named 'house_greeter'" in job["error"]["message"]
    assert '"environment": {"packages": ["house_greeter"]}' in job["error"]["resolution"]


def test_a_job_chooses_its_version_of_snakemake(jobs: JobsClient) -> None:
    job_id = jobs.submit_workflow(
        "touch", config={"count": 2}, environment={"packages": ["snakemake==9.14.0"]}
    )
    assert jobs.wait(job_id, "completed", seconds=180)["snakemake_version"] == "9.14.0"
    assert set(jobs.statuses(job_id).values()) == {"completed"}


def test_a_resumed_job_gets_the_packages_of_the_first(jobs: JobsClient, stack: LocalStack) -> None:
    spec = {"environment": {"packages": ["snakemake==9.14.0"]}}
    job_id = jobs.submit_workflow("failing", **spec)
    jobs.wait(job_id, "failed", seconds=180)
    resumed = jobs.http.post(f"/jobs/{job_id}/resume").json()["id"]
    jobs.wait(resumed, "failed", seconds=180)
    home = stack.settings.home
    first, second = (home / "jobs" / each / "environment.json" for each in (job_id, resumed))
    assert first.read_text() == second.read_text()


def test_an_environment_that_is_not_declared_is_refused_at_once(jobs: JobsClient) -> None:
    spec = {"workflow": bundle(jobs, FILES), "environment": "absent"}
    answer = jobs.http.post("/jobs", json=spec)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":environment-refused")
    assert answer.json()["errors"][0]["pointer"] == "#/environment"


@pytest.mark.parametrize(
    "environment",
    [
        {"packages": ["thing @ https://example.org/thing.whl"]},
        {"packages": ["--index-url=https://example.org"]},
        {"file": "../requirements.txt"},
        {"packages": ["pandas"], "file": "requirements.txt"},
        {"name": "default", "python": "3.12"},
    ],
)
def test_where_packages_come_from_is_not_the_jobs_to_say(
    jobs: JobsClient, environment: dict[str, object]
) -> None:
    answer = jobs.http.post("/jobs", json={"workflow": {"path": "/x"}, "environment": environment})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("#/environment")


def test_packages_that_can_not_be_had_fail_the_job_with_uvs_reason(jobs: JobsClient) -> None:
    job_id = jobs.submit_workflow("touch", environment={"packages": ["a-package-that-nobody-has-made"]})
    job = jobs.wait(job_id, "failed", seconds=60)
    assert "a-package-that-nobody-has-made was not found" in job["error"]["message"]
    assert job["progress"] == {"done": 0, "total": 0}


def test_a_job_that_waits_for_its_environment_says_so_and_can_be_cancelled(
    jobs: JobsClient, stack: LocalStack
) -> None:
    packages = ("house_greeter == 1.0", "snakemake == 9.14.0")
    settings = EnvironmentSettings(environments_directory=ENVIRONMENTS)
    environments = Environments(settings, stack.settings.home)
    digest = environments.wanted(EnvironmentSpec(packages=packages)).digest
    with (ENVIRONMENTS / f"{digest}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        job_id = jobs.submit_workflow("touch", environment={"packages": list(packages)})
        wait_until(lambda: jobs.get(job_id)["phase"] == "making the environment", "the job says so")
        assert "Waiting for another job" in jobs.log(job_id)
        asked = time.monotonic()
        jobs.http.post(f"/jobs/{job_id}/cancel").raise_for_status()
        job = jobs.wait(job_id, "cancelled")
    assert time.monotonic() - asked < 10
    assert job["phase"] is None


def test_a_group_has_an_environment_of_its_own(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As a parameter of its deployment; a job that names another gets that."""
    content = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    content["definitions"]["environments"] = {"old": {"packages": ["snakemake == 9.14.0"]}}
    content["deployments"][0]["parameters"] = {"environment": {"name": "old"}}
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump(content))
    settings = local_settings(tmp_path_factory.mktemp("home"), [PROJECT / "tests" / "workflows"])
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("JOBS_ENVIRONMENTS_DIRECTORY", str(ENVIRONMENTS))
        variables.setenv("JOBS_PREFECT_FILE", str(file))
        changed = settings.model_copy(update={"prefect_file": file})
        with (
            LocalStack(changed) as running,
            httpx.Client(base_url=running.settings.api_url, timeout=30) as http,
        ):
            own = JobsClient(http)
            count = {"config": {"count": 1}}
            of_group = own.wait(own.submit_workflow("touch", **count), "completed", seconds=120)
            named = own.submit_workflow("touch", environment="default", **count)
            of_job = own.wait(named, "completed", seconds=120)
    assert of_group["snakemake_version"] == "9.14.0"
    assert of_job["snakemake_version"].startswith("9.27")
