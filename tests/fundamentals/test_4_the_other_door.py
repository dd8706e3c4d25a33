"""What Prefect's own command line or UI submits is a job like any other, and the other way round."""

import json
import os
import subprocess
import sys

import httpx

from deployments.local import LocalStack
from tests.support import JobsClient


def test_prefect_deployment_run_submits_a_job(stack: LocalStack, jobs: JobsClient) -> None:
    mock = {"delay_seconds": [0, 0.1], "success_rate": 1, "rules": 2}
    command = [sys.executable, "-m", "prefect", "deployment", "run", "snakemake-job/default"]
    parameters = ["-p", "engine=mock", "-p", f"mock={json.dumps(mock)}"]

    # The profile in there has the address and the password.
    environment = {**os.environ, "PREFECT_HOME": str(stack.settings.home / "prefect")}

    subprocess.run([*command, *parameters, "--tag", "by:hand"], env=environment, check=True)

    job = next(iter(jobs.items("/jobs", tag="by:hand")))
    assert jobs.wait(job["id"])["status"] == "completed"
    assert len(jobs.tasks(job["id"])) == 2


def test_the_run_form_of_the_prefect_ui_knows_every_parameter(prefect_api: httpx.Client) -> None:
    deployment = prefect_api.get("/deployments/name/snakemake-job/default").json()

    form = deployment["parameter_openapi_schema"]["properties"]

    assert set(form) >= {"engine", "workflow", "snakefile", "targets", "config", "cores", "options", "mock"}


def test_a_job_has_the_same_id_in_prefect(jobs: JobsClient, prefect_api: httpx.Client) -> None:
    job_id = jobs.submit(engine="mock", name="two-names", mock={"delay_seconds": [0, 0], "success_rate": 1})

    flow_run = prefect_api.get(f"/flow_runs/{job_id}").json()

    assert flow_run["name"] == "two-names"
