"""Chains: a job of one registered workflow that completes makes a job of another one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from deployments.local import LocalStack
from tests.flows.executions import write_workflow
from tests.support import JobsClient, Json, wait_until

ALIGNING = """
rule align:
    output: "results/aligned"
    shell: "echo {config[sample]} > {output}"
"""
CALLING = """
rule call:
    input: "resources/aligned"
    output: "called"
    shell: "echo {config[by]} $(cat {input}) > {output}"
"""
DECLARED = """
after-aligning:
  completed: {aligning}
  outputs:
    resources/aligned: results/aligned
  parameters:
    config: {{by: "{{{{ job.id }}}}"}}
"""


@pytest.fixture
def names(jobs: JobsClient, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The names of two registered workflows. They leave no trigger behind."""
    names = []
    for kind, snakefile in (("aligning", ALIGNING), ("calling", CALLING)):
        name = f"{kind}-{uuid4().hex[:8]}"
        source = {"path": str(write_workflow(tmp_path / kind, snakefile))}
        made = jobs.http.put(f"/workflows/{name}/versions/1", json={"workflow": source})
        assert made.status_code == 201, made.text
        names.append(name)
    yield names[0], names[1]
    for each in jobs.http.get(f"/workflows/{names[1]}/triggers").json()["items"]:
        jobs.http.delete(f"/workflows/{names[1]}/triggers/{each['slug']}")


def command(stack: LocalStack, *arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("prefect-snakemake")), "workflows", *arguments],
        env={**stack.environment, "JOBS_URL": stack.settings.api_url, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_job_that_completes_makes_a_job_with_its_outputs(
    jobs: JobsClient, stack: LocalStack, names: tuple[str, str], tmp_path: Path
) -> None:
    aligning, calling = names
    declared = tmp_path / "triggers.yaml"
    declared.write_text(DECLARED.format(aligning=aligning))
    assert "results/aligned" in command(stack, "trigger", calling, str(declared))
    assert command(stack, "triggers", calling) == command(stack, "trigger", calling, str(declared))

    planned = jobs.submit(workflow={"name": aligning}, config={"sample": "A"}, dry_run=True)
    jobs.wait(planned, "completed")
    first = jobs.submit(workflow={"name": aligning}, config={"sample": "A"})
    jobs.wait(first, "completed")

    (made,) = wait_until(lambda: list(jobs.items("/jobs", workflow=calling)), "the trigger has made a job")
    jobs.wait(made["id"], "completed")
    called = jobs.http.get(f"/jobs/{made['id']}/outputs/called", follow_redirects=True).text
    assert called == f"{first} A\n"
    assert len(list(jobs.items("/jobs", workflow=calling))) == 1

    command(stack, "untrigger", calling, "after-aligning")
    assert jobs.http.get(f"/workflows/{calling}/triggers").json()["items"] == []


WAITING = """
incoming:
  new_file: {directory}/*.txt
  file_as: resources/aligned
  parameters:
    config: {{by: "{{{{ file }}}}"}}
"""


def test_each_new_file_makes_a_job(
    jobs: JobsClient, stack: LocalStack, names: tuple[str, str], tmp_path: Path
) -> None:
    """Files that were there before do not, nor does a file of another name, and a restart repeats none."""
    _, calling = names
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    (incoming / "old.txt").write_text("old")
    declared = tmp_path / "triggers.yaml"
    declared.write_text(WAITING.format(directory=incoming))
    assert "resources/aligned" in command(stack, "trigger", calling, str(declared))

    (incoming / "other.csv").write_text("other")
    (incoming / "new.txt").write_text("new")
    (made,) = wait_until(lambda: list(jobs.items("/jobs", workflow=calling)), "the file has made a job")
    jobs.wait(made["id"], "completed")
    called = jobs.http.get(f"/jobs/{made['id']}/outputs/called", follow_redirects=True).text
    assert called == f"{incoming}/new.txt new\n"

    stack.restart_api()
    (incoming / "newer.txt").write_text("newer")
    wait_until(lambda: len(list(jobs.items("/jobs", workflow=calling))) > 1, "the next file has made a job")
    second = next(iter(jobs.items("/jobs", workflow=calling)))
    jobs.wait(second["id"], "completed")
    called = jobs.http.get(f"/jobs/{second['id']}/outputs/called", follow_redirects=True).text
    assert called == f"{incoming}/newer.txt newer\n"
    assert len(list(jobs.items("/jobs", workflow=calling))) == 2


@pytest.mark.parametrize("pattern", ["/etc/*", "{root}/../../etc/*", "incoming/*", "{root}/nothing/*.txt"])
def test_files_outside_of_the_data_roots_trigger_nothing(
    jobs: JobsClient, names: tuple[str, str], tmp_path: Path, pattern: str
) -> None:
    body = {"new_file": pattern.format(root=tmp_path), "file_as": "resources/aligned"}
    response = jobs.http.put(f"/workflows/{names[1]}/triggers/wrong", json=body)
    assert response.status_code == 422, response.text
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/new_file"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"completed": "nothing-of-this-name"}, "#/completed"),
        ({"outputs": {"resources/aligned": "../../other/work"}}, "#/outputs/resources~1aligned"),
        ({"parameters": {"config": {"by": "{{ flow_run.parameters }}"}}}, "#/parameters"),
        ({"parameters": {"config": {"{% raw %}": 1}}}, "#/parameters"),
        ({"parameters": {"snakefile": "other"}}, "#/parameters/snakefile"),
    ],
)
def test_a_mistake_in_a_trigger_is_reported_with_its_place(
    jobs: JobsClient, names: tuple[str, str], fields: Json, pointer: str
) -> None:
    aligning, calling = names
    body = {"completed": aligning, **fields}
    response: httpx.Response = jobs.http.put(f"/workflows/{calling}/triggers/wrong", json=body)
    assert response.status_code == 422, response.text
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert jobs.http.get(f"/workflows/{calling}/triggers").json()["items"] == []


def test_a_workflow_of_another_group_and_the_workflow_itself_trigger_nothing(
    jobs: JobsClient, names: tuple[str, str], tmp_path: Path
) -> None:
    _, calling = names
    other = f"other-{uuid4().hex[:8]}"
    source = {"path": str(write_workflow(tmp_path / "other", ALIGNING))}
    version = {"workflow": source, "group": "large"}
    assert jobs.http.put(f"/workflows/{other}/versions/1", json=version).status_code == 201
    for completed in (other, calling):
        body = {"completed": completed}
        response = jobs.http.put(f"/workflows/{calling}/triggers/wrong", json=body)
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["pointer"] == "#/completed"


def test_a_job_reads_only_what_a_completed_job_of_its_group_has_made(
    jobs: JobsClient, names: tuple[str, str]
) -> None:
    aligning, calling = names
    done = jobs.submit(workflow={"name": aligning}, config={"sample": "B"})
    jobs.wait(done, "completed")

    def body(job_id: str, **more: object) -> Json:
        inputs = {"resources/aligned": {"job": job_id, "path": "results/aligned"}}
        return {"workflow": {"name": calling}, "inputs": inputs, "config": {"by": "hand"}, **more}

    job_id = jobs.submit(**body(done))
    jobs.wait(job_id, "completed")
    called = jobs.http.get(f"/jobs/{job_id}/outputs/called", follow_redirects=True).text
    assert called == "hand B\n"

    source = jobs.get(done)["id"]
    path = jobs.http.get(f"/workflows/{calling}/versions/1").json()["job"]["workflow"]["path"]
    for wrong in (
        body(str(uuid4())),
        {**body(source), "workflow": {"path": path}, "group": "large"},
    ):
        response = jobs.http.post("/jobs", json=wrong)
        assert response.status_code == 422, response.text
        assert [each["pointer"] for each in response.json()["errors"]] == ["#/inputs/resources~1aligned/job"]
