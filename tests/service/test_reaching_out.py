"""A rule that puts links in the place of its job's files gets nothing by way of the service.

In its room, a rule can't replace most of them; without one, it may read what the worker's user may read.
The facade is another process, with secrets of its own.
"""

from pathlib import Path

import httpx
import pytest

from deployments.local import LocalStack
from tests.support import JobsClient, Json

ENVIRONMENT = "/proc/self/environ"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that is none of the job's."""
    path = tmp_path / "tokens.json"
    path.write_text("the secret of the facade")
    return path


def run(jobs: JobsClient, directory: Path, command: str, output: str = "made.txt") -> Json:
    """The job of a workflow of one rule, which makes `output`, and ends with `command`."""
    workflow = directory / "workflow"
    workflow.mkdir()
    (workflow / "Snakefile").write_text(
        f"rule reach_out:\n    output: {output!r}\n    shell: 'echo made > {{output}}; {command}'\n"
    )
    return jobs.wait(jobs.submit(workflow={"path": str(workflow)}))


@pytest.mark.parametrize("target", [ENVIRONMENT, "/dev/zero"])
def test_its_log_is_not_that_of_another(
    stack: LocalStack, jobs: JobsClient, tmp_path: Path, target: str
) -> None:
    job = run(jobs, tmp_path, ":")
    snakemake_log = stack.settings.home / "jobs" / job["id"] / "snakemake.log"
    snakemake_log.unlink()
    snakemake_log.symlink_to(target)  # as a rule without a room could

    log = httpx.get(f"{stack.settings.api_url}/ga4gh/wes/v1/runs/{job['id']}/log", timeout=10)
    assert log.status_code == 404
    assert jobs.http.get(f"/jobs/{job['id']}/outputs/made.txt").text == "made\n"


def test_a_failure_is_told_without_what_its_log_leads_to(jobs: JobsClient, tmp_path: Path) -> None:
    logs = "../snakemake.log .snakemake/attempts/*.log"
    command = f"for log in {logs}; do ln -sf {ENVIRONMENT} $log || true; done; exit 1"

    job = run(jobs, tmp_path, command)

    assert job["error"]["rule"] == "reach_out"
    assert "JOBS_HOME=" not in job["error"]["message"]
    assert "JOBS_HOME=" not in jobs.log(job["id"])


def test_its_directory_is_not_that_of_another(jobs: JobsClient, tmp_path: Path, secret: Path) -> None:
    output = str(secret).lstrip("/")

    job = run(jobs, tmp_path, "mv ../work ../moved; ln -s / ../work", output)

    assert "cannot move" in job["error"]["message"]
    assert list(jobs.items(f"/jobs/{job['id']}/outputs")) == []
    assert jobs.http.get(f"/jobs/{job['id']}/outputs/{output}").status_code == 404


def test_its_outputs_are_not_those_of_another(jobs: JobsClient, tmp_path: Path, secret: Path) -> None:
    job = run(jobs, tmp_path, f"ln -sf {secret} {{output}}")

    assert list(jobs.items(f"/jobs/{job['id']}/outputs")) == []
    assert jobs.http.get(f"/jobs/{job['id']}/outputs/made.txt").status_code == 404
