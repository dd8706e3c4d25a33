"""Workflows that are not on the server: sent as a bundle, or fetched from a git repository."""

from pathlib import Path

from tests.flows.archives import link, member, tar, workflow
from tests.flows.git_servers import Repository, serving_by_git
from tests.support import JobsClient

SNAKEFILE = """
rule all:
    input: "results/greeting.txt"

rule greet:
    output: "results/greeting.txt"
    shell: "sh scripts/greet.sh {config[name]} > {output}"
"""
FILES = {"workflow/Snakefile": SNAKEFILE, "scripts/greet.sh": "echo Hello, $1!\n"}


def greeting(jobs: JobsClient, job_id: str) -> str:
    """What the job has written, as a client downloads it."""
    (output,) = jobs.items(f"/jobs/{job_id}/outputs")
    return jobs.http.get(output["url"]).raise_for_status().text


def test_a_bundle_is_sent_once_and_run_as_often_as_you_like(jobs: JobsClient) -> None:
    answer = jobs.http.put("/bundles", content=workflow(FILES)).raise_for_status().json()
    assert answer["files"] == 2

    job_ids = {
        name: jobs.submit(workflow={"bundle": answer["bundle"]}, config={"name": name})
        for name in ("Ada", "Alan")
    }

    for name, job_id in job_ids.items():
        assert jobs.wait(job_id, "completed")["commit"] is None
        assert greeting(jobs, job_id) == f"Hello, {name}!\n"


def test_a_workflow_is_fetched_from_git_and_its_commit_recorded(jobs: JobsClient, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repository.git")
    commit = repository.commit({f"pipelines/greet/{path}": text.encode() for path, text in FILES.items()})
    repository.tag("v1", commit, is_annotated=True)
    repository.commit({"README": b"moved away"})

    with serving_by_git(repository) as address:
        source = {"git": address, "ref": "v1", "subdir": "pipelines/greet"}
        job_id = jobs.submit(workflow=source, config={"name": "Grace"})
        job = jobs.wait(job_id, "completed")

    assert job["commit"] == commit
    assert greeting(jobs, job_id) == "Hello, Grace!\n"
    assert commit in jobs.log(job_id)


def test_a_repository_that_cannot_be_fetched_fails_the_job_and_says_what_to_do(
    jobs: JobsClient, tmp_path: Path
) -> None:
    repository = Repository(tmp_path / "repository.git")
    repository.commit({"Snakefile": b"rule all:\n"})

    with serving_by_git(repository) as address:
        job = jobs.wait(jobs.submit(workflow={"git": address, "ref": "missing"}), "failed")

    assert job["error"]["kind"] == "workflow"
    assert "no branch or tag 'missing'" in job["error"]["message"]
    assert "`workflow.ref`" in job["error"]["resolution"]


def test_a_bundle_that_leads_out_of_its_tree_never_becomes_a_job(jobs: JobsClient) -> None:
    archive = tar(member("Snakefile", SNAKEFILE.encode()), link("secret", "../../../postgres"))

    answer = jobs.http.put("/bundles", content=archive)

    assert answer.status_code == 422
    assert "points outside" in answer.json()["detail"]
