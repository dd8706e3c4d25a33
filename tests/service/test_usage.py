"""What jobs took, what would have been enough, and how two jobs differ."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deployments.local import LocalStack
from tests.flows.executions import write_workflow
from tests.support import JobsClient

SNAKEFILE = """
rule all:
    input: "joined", expand("big/{n}", n=[1, 2])

rule big:
    output: "big/{n}"
    threads: 2
    resources: mem_mb=5000
    shell: "python3 -c 'import time; held = b\\"x\\" * 300_000_000; time.sleep(0.6)'; touch {output}"

rule join:
    input: expand("big/{n}", n=[1, 2])
    output: "joined"
    shell: "echo {config[word]} > {output}"
"""


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    return write_workflow(tmp_path / "uses", SNAKEFILE)


def test_what_a_rule_took_is_told_and_a_profile_that_fits_is_made(
    jobs: JobsClient, stack: LocalStack, workflow: Path
) -> None:
    source = {"path": str(workflow)}
    job_id = jobs.submit(workflow=source, config={"word": "a"}, cores=2)
    jobs.wait(job_id, "completed")

    usage = jobs.http.get(f"/jobs/{job_id}/usage").json()
    (big,) = [each for each in usage["rules"] if each["rule"] == "big"]
    assert (big["jobs"], big["attempts"], big["threads"], big["requested_mem_mb"]) == (2, 2, 2, 5000)
    assert 300e6 < big["peak_memory_bytes"]["largest"] < 420e6
    assert big["seconds"]["median"] > 0.6
    assert 350 <= big["suggested"]["mem_mb"] <= 550
    assert big["suggested"]["threads"] == 1  # it sleeps
    assert [step["name"].partition("[")[0] for step in usage["critical_path"]][:2] == ["big", "join"]

    made = subprocess.run(
        [str(Path(sys.executable).with_name("prefect-snakemake")), "usage", job_id, "--profile"],
        env={**stack.environment, "JOBS_URL": stack.settings.api_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert yaml.safe_load(made)["set-resources"]["big"]["mem_mb"] == big["suggested"]["mem_mb"]
    (workflow / "fits").mkdir()
    (workflow / "fits" / "config.yaml").write_text(made)
    fitted = jobs.submit(workflow=source, config={"word": "a"}, cores=2, options={"workflow_profile": "fits"})
    jobs.wait(fitted, "completed")
    task = jobs.tasks(fitted, rule="big")[0]
    assert (task["threads"], task["resources"]["mem_mb"]) == (1, big["suggested"]["mem_mb"])


def test_two_jobs_are_compared(jobs: JobsClient, workflow: Path) -> None:
    one, other = (
        jobs.submit(workflow={"path": str(workflow)}, config={"word": word}, targets=targets, cores=2)
        for word, targets in (("a", ["joined"]), ("b", ["joined", "big/1"]))
    )
    for job_id in (one, other):
        jobs.wait(job_id, "completed")
    found = jobs.http.get(f"/jobs/{one}/comparison/{other}").json()
    assert found["spec"] == [
        {"pointer": "#/config/word", "one": "a", "other": "b"},
        {"pointer": "#/targets", "one": ["joined"], "other": ["joined", "big/1"]},
    ]
    assert found["versions"] == []
    assert {each["rule"] for each in found["rules"]} == {"big", "join"}
    assert found["outputs"] == {"same": 2, "different": ["joined"], "only_one": [], "only_other": []}
