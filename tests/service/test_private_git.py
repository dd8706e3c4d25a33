"""A job whose workflow is in a private git repository, with a token from Prefect's blocks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.flows.git_servers import Repository, self_signed, serving
from tests.service.blocks import save_block
from tests.support import JobsClient

TOKEN = "the-token-of-the-lab"


@contextmanager
def settings_of_deployment(
    prefect_api: httpx.Client, deployment: str, environment: dict[str, str]
) -> Iterator[None]:
    """What the operator sets for the jobs of one group."""
    address = f"/deployments/{deployment}"
    prefect_api.patch(address, json={"job_variables": {"env": environment}}).raise_for_status()
    try:
        yield
    finally:
        prefect_api.patch(address, json={"job_variables": {}}).raise_for_status()


@pytest.mark.parametrize("block", ["secret/git-token", "github-credentials/lab"])
def test_a_private_workflow_runs_and_its_token_is_nowhere(
    jobs: JobsClient, prefect_api: httpx.Client, tmp_path: Path, block: str
) -> None:
    kind, _, name = block.partition("/")
    save_block(prefect_api, name, TOKEN, kind, "value" if kind == "secret" else "token")
    repository = Repository(tmp_path / "repository.git")
    commit = repository.commit({"Snakefile": b"rule a:\n    output: 'a.txt'\n    shell: 'env > {output}'\n"})
    certificate = self_signed(tmp_path / "certificate.pem")
    with serving(repository, certificate, f"x-access-token:{TOKEN}") as address:
        credential = {urlsplit(address).netloc: {"block": block, "groups": ["default"]}}
        environment = {
            "JOBS_GIT_CREDENTIALS": json.dumps(credential),
            "SSL_CERT_FILE": str(certificate),  # the server's, which nobody else trusts
        }
        deployment = prefect_api.get("/deployments/name/snakemake-job/default").json()["id"]
        with settings_of_deployment(prefect_api, deployment, environment):
            run = prefect_api.post(
                f"/deployments/{deployment}/create_flow_run",
                json={"parameters": {"workflow": {"git": address}}},
            )
            job = jobs.wait(run.raise_for_status().json()["id"], "completed")

    assert job["commit"] == commit
    said = [
        jobs.log(job["id"]),
        jobs.http.get(f"/jobs/{job['id']}/outputs/a.txt").text,
        prefect_api.get(f"/flow_runs/{job['id']}").text,
    ]
    assert not [text for text in said if TOKEN in text or "JOBS_GIT_CREDENTIALS=" in text]
