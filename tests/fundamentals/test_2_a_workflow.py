"""A job with the snakemake engine runs a real workflow, from a copy that nobody can change."""

from pathlib import Path

from tests.support import JobsClient

SNAKEFILE = """
rule all:
    input: expand("greetings/{name}.txt", name=config.get("names", ["world"]))

rule greet:
    output: "greetings/{name}.txt"
    shell: "echo 'Hello, {wildcards.name}!' | tee {output}"
"""


def workflow(directory: Path) -> str:
    (directory / "Snakefile").write_text(SNAKEFILE)
    return str(directory)


def test_the_workflow_runs_and_its_outputs_can_be_downloaded(jobs: JobsClient, tmp_path: Path) -> None:
    job_id = jobs.submit(workflow={"path": workflow(tmp_path)})

    jobs.wait(job_id, "completed")

    assert [output["path"] for output in jobs.items(f"/jobs/{job_id}/outputs")] == ["greetings/world.txt"]
    download = jobs.http.get(f"/jobs/{job_id}/outputs/greetings/world.txt")
    assert download.text == "Hello, world!\n"


def test_config_overrides_the_configuration_of_the_workflow(jobs: JobsClient, tmp_path: Path) -> None:
    job_id = jobs.submit(workflow={"path": workflow(tmp_path)}, config={"names": ["Ada", "Emmy"]}, cores=2)

    jobs.wait(job_id, "completed")

    assert jobs.statuses(job_id) == {
        "all": "completed",
        "greet[name=Ada]": "completed",
        "greet[name=Emmy]": "completed",
    }


def test_targets_choose_what_is_made(jobs: JobsClient, tmp_path: Path) -> None:
    job_id = jobs.submit(workflow={"path": workflow(tmp_path)}, targets=["greetings/Grace.txt"])

    jobs.wait(job_id, "completed")

    assert jobs.statuses(job_id) == {"greet[name=Grace]": "completed"}


def test_what_was_submitted_stays_what_it_was(jobs: JobsClient, tmp_path: Path) -> None:
    job_id = jobs.submit(workflow={"path": workflow(tmp_path)})
    jobs.wait(job_id, "completed")

    assert not (tmp_path / "greetings").exists(), "the job worked in the submitter's directory"
