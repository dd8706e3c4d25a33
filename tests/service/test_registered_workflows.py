"""Workflows that are registered once: run by name, by the jobs API and from Prefect, each checked before."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Page, expect

from deployments.local import LocalStack
from tests.flows.executions import write_workflow
from tests.flows.git_servers import Repository, serving_by_git
from tests.service.browser import log_in
from tests.support import JobsClient, Json, wait_until

SNAKEFILE = """
import csv
from snakemake.utils import validate

configfile: "config/config.yaml"
validate(config, schema="schemas/config.schema.yaml")

with open(config["samples"]) as file:
    samples = [row["sample"] for row in csv.DictReader(file, delimiter="\\t")]

validate(config, schema="schemas/config.schema.yaml")
# As workflows do it with pandas: validate(samples, schema="schemas/samples.schema.yaml")

rule all:
    input: expand("counted/{sample}", sample=samples)

rule count:
    output: "counted/{sample}"
    shell: "echo {wildcards.sample} {config[depth]} {config[caller][name]} > {output}"
"""

CONFIG_SCHEMA = """
$schema: "http://json-schema.org/draft-07/schema#"
description: Options of the counter.
type: object
properties:
  samples: {type: string, description: The sample sheet.}
  depth: {type: integer, minimum: 1, description: How deep to count.}
  caller:
    type: object
    properties:
      name: {enum: [bcftools, freebayes], description: Which caller to use.}
    required: [name]
  color: {$ref: "#/definitions/color"}
definitions:
  color: {type: string, enum: [red, green], default: red}
required: [samples, depth, caller]
"""

ROW_SCHEMA = """
type: object
properties:
  sample: {type: string, pattern: "^[A-Z]+$", description: Its name.}
  reads: {type: integer}
required: [sample]
"""


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    directory = write_workflow(tmp_path / "count", SNAKEFILE)
    for name, text in {
        "config/config.yaml": "samples: config/samples.tsv\ndepth: 1\ncaller:\n  name: bcftools\n",
        "config/samples.tsv": "sample\treads\nA\t10\n",
        "schemas/config.schema.yaml": CONFIG_SCHEMA,
        "schemas/samples.schema.yaml": ROW_SCHEMA,
        "README.md": "# Counter\n\nCounts samples.\n",
    }.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    return directory


@pytest.fixture
def name() -> str:
    return f"counter-{uuid4().hex[:8]}"


def register(jobs: JobsClient, name: str, version: str, workflow: Path, **fields: Any) -> httpx.Response:
    body = {"workflow": {"path": str(workflow)}, **fields}
    return jobs.http.put(f"/workflows/{name}/versions/{version}", json=body)


def registered(jobs: JobsClient, name: str, version: str, workflow: Path, **fields: Any) -> Json:
    response = register(jobs, name, version, workflow, **fields)
    assert response.status_code == 201, response.text
    found: Json = response.json()
    return found


def output(jobs: JobsClient, job_id: str, path: str) -> str:
    return jobs.http.get(f"/jobs/{job_id}/outputs/{path}", follow_redirects=True).text


def test_a_registered_workflow_runs_by_its_name(jobs: JobsClient, workflow: Path, name: str) -> None:
    made = registered(jobs, name, "1.0", workflow, config={"depth": 7})
    assert (made["default"], made["group"], made["registered_by"]) == (True, "default", "anyone")

    job = jobs.wait(
        jobs.submit(workflow={"name": name}, config={"caller": {"name": "freebayes"}}), "completed"
    )
    assert job["workflow"] == {"name": name, "version": "1.0"}
    assert output(jobs, job["id"], "counted/A") == "A 7 freebayes\n"
    assert [each["id"] for each in jobs.items("/jobs", workflow=name)] == [job["id"]]
    assert job["id"] in {each["id"] for each in jobs.items("/jobs", group="default")}

    again = jobs.http.post(f"/jobs/{job['id']}/resume", json={"config": {"depth": 8}}).json()
    again = jobs.wait(again["id"], "completed")
    assert again["workflow"] == {"name": name, "version": "1.0"}


def test_versions_stay_as_they_are(jobs: JobsClient, workflow: Path, name: str) -> None:
    registered(jobs, name, "1.0", workflow, config={"depth": 2})
    same = register(jobs, name, "1.0", workflow, config={"depth": 2})
    assert same.status_code == 200
    other = register(jobs, name, "1.0", workflow, config={"depth": 3})
    assert other.status_code == 409
    assert other.json()["type"].endswith(":version-exists")

    registered(jobs, name, "2.0", workflow, config={"depth": 3}, default=False)
    found = jobs.http.get(f"/workflows/{name}").json()
    assert found["default_version"] == "1.0"
    assert [(each["version"], each["default"]) for each in found["versions"]] == [
        ("2.0", False),
        ("1.0", True),
    ]

    newer = jobs.wait(jobs.submit(workflow={"name": name, "version": "2.0"}), "completed")
    assert output(jobs, newer["id"], "counted/A") == "A 3 bcftools\n"

    retired = jobs.http.post(f"/workflows/{name}/versions/1.0/retire").json()
    assert retired["retired"] is True
    assert jobs.http.get(f"/workflows/{name}").json()["default_version"] == "2.0"
    refused = jobs.http.post("/jobs", json={"workflow": {"name": name, "version": "1.0"}})
    assert refused.status_code == 422
    assert "is retired" in refused.json()["detail"]


def test_mistakes_are_reported_with_their_places_before_there_is_a_job(
    jobs: JobsClient, workflow: Path, name: str
) -> None:
    registered(jobs, name, "1.0", workflow)
    details = jobs.http.get(f"/workflows/{name}/versions/1.0").json()
    assert details["readme"].startswith("# Counter")
    assert details["config_schema_file"] == "schemas/config.schema.yaml"
    assert [table["path"] for table in details["tables"]] == ["config/samples.tsv"]

    response = jobs.http.post(
        "/jobs",
        json={
            "workflow": {"name": name},
            "config": {"depth": 0, "caller": {"name": "gatk"}},
            "files": {"config/samples.tsv": "sample\treads\nA\t1\nb\tmany\n"},
        },
    )
    assert response.status_code == 422
    assert {error["pointer"] for error in response.json()["errors"]} == {
        "#/config/depth",
        "#/config/caller/name",
        "#/files/config~1samples.tsv/2/sample",
        "#/files/config~1samples.tsv/2/reads",
    }
    for body, pointer in (
        ({"workflow": {"name": name}, "snakefile": "other"}, "#/snakefile"),
        ({"workflow": {"name": name}, "group": "large"}, "#/group"),
        ({"workflow": {"name": name, "version": "9"}}, "#/workflow/version"),
        ({"workflow": {"name": f"{name}x"}}, "#/workflow/name"),
    ):
        (error,) = jobs.http.post("/jobs", json=body).json()["errors"]
        assert error["pointer"] == pointer
    assert list(jobs.items("/jobs", workflow=name)) == []


def test_the_deployment_has_a_form_that_prefect_checks(
    jobs: JobsClient, prefect_api: httpx.Client, stack: LocalStack, workflow: Path, name: str
) -> None:
    registered(jobs, name, "1.0", workflow, cores=2)
    deployment = prefect_api.get(f"/deployments/name/snakemake-job/{name}").json()
    form = deployment["parameter_openapi_schema"]
    fields = form["properties"]
    assert sorted(fields, key=lambda each: fields[each]["position"])[:3] == ["config", "files", "cores"]
    config = form["properties"]["config"]
    assert config["properties"]["depth"] == {
        "type": "integer",
        "minimum": 1,
        "description": "How deep to count.",
        "default": 1,
        "position": 1,
    }
    assert config["properties"]["color"] == {"$ref": "#/definitions/config.color", "position": 3}
    assert form["definitions"]["config.color"]["enum"] == ["red", "green"]

    wrong = prefect_api.post(
        f"/deployments/{deployment['id']}/create_flow_run", json={"parameters": {"config": {"depth": 0}}}
    )
    assert wrong.status_code == 409
    assert "config.depth" in wrong.text

    run = subprocess.run(
        [sys.executable, "-m", "prefect", "deployment", "run", f"snakemake-job/{name}", "--param",
         'config={"depth": 5}', "--watch"],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    (job,) = jobs.items("/jobs", workflow=name)
    assert (job["status"], job["workflow"]) == ("completed", {"name": name, "version": "1.0"})
    assert output(jobs, job["id"], "counted/A") == "A 5 bcftools\n"


def test_who_has_only_the_prefect_ui_runs_it_from_its_form(
    jobs: JobsClient, stack: LocalStack, page: Page, workflow: Path, name: str
) -> None:
    registered(jobs, name, "1.0", workflow)
    log_in(page, stack)
    page.goto(f"{jobs.http.get(f'/workflows/{name}').json()['prefect']}/run")
    depth = page.locator("input[type=number]").first
    expect(depth).to_have_value("1", timeout=30_000)
    expect(page.get_by_text("How deep to count.")).to_be_visible()
    expect(page.get_by_text("Columns: sample, reads (optional).")).to_be_visible()

    depth.fill("0")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("less than the minimum of 1").first).to_be_visible(timeout=30_000)
    assert list(jobs.items("/jobs", workflow=name)) == []

    depth.fill("9")
    page.get_by_role("button", name="Submit").click()
    job = wait_until(lambda: list(jobs.items("/jobs", workflow=name)), "the form has made a job")[0]
    jobs.wait(job["id"], "completed")
    assert output(jobs, job["id"], "counted/A") == "A 9 bcftools\n"


def test_wes_runs_it_by_its_name(jobs: JobsClient, workflow: Path, name: str) -> None:
    registered(jobs, name, "1.0", workflow)
    info = jobs.http.get("/ga4gh/wes/v1/service-info").json()
    assert name in info["tags"]["registered_workflows"].split(", ")
    form = {
        "workflow_type": "SMK",
        "workflow_type_version": "1.0",
        "workflow_url": f"{name}@1.0",
        "workflow_params": '{"depth": 3}',
    }
    parts = [(field, (None, text)) for field, text in form.items()]
    run_id = jobs.http.post("/ga4gh/wes/v1/runs", files=parts).json()["run_id"]
    jobs.wait(run_id, "completed")
    assert output(jobs, run_id, "counted/A") == "A 3 bcftools\n"


def test_a_schedule_of_prefect_runs_it_and_stays_with_another_version(
    jobs: JobsClient, prefect_api: httpx.Client, workflow: Path, name: str
) -> None:
    registered(jobs, name, "1.0", workflow)
    deployment_id = prefect_api.get(f"/deployments/name/snakemake-job/{name}").json()["id"]
    schedule = [{"schedule": {"interval": 3600, "anchor_date": "2026-01-01T00:00:00Z"}, "active": True}]
    prefect_api.post(f"/deployments/{deployment_id}/schedules", json=schedule).raise_for_status()
    registered(jobs, name, "2.0", workflow, config={"depth": 4})

    deployment = prefect_api.get(f"/deployments/{deployment_id}").json()
    assert (deployment["version"], len(deployment["schedules"])) == ("2.0", 1)
    planned = prefect_api.post(f"/deployments/{deployment_id}/schedule", json={"max_runs": 1})
    planned.raise_for_status()
    (job,) = wait_until(lambda: list(jobs.items("/jobs", workflow=name)), "a run is scheduled")[:1]
    assert job["status"] == "pending"
    assert job["workflow"] == {"name": name, "version": "2.0"}

    (left,) = deployment["schedules"]
    prefect_api.delete(f"/deployments/{deployment_id}/schedules/{left['id']}").raise_for_status()


def test_a_workflow_that_cannot_be_read_is_refused_with_the_reason(
    jobs: JobsClient, tmp_path: Path, name: str
) -> None:
    directory = write_workflow(tmp_path / "broken", "rule all:\n    shell: 'true'\n")
    body = {"snakefile": "missing.smk"}
    response = register(jobs, name, "1", directory, **body)
    assert response.status_code == 422
    assert "missing.smk" in response.json()["detail"]
    assert jobs.http.get(f"/workflows/{name}").status_code == 404
    group = register(jobs, "large", "1", directory)
    assert (group.status_code, group.json()["detail"]) == (409, "The name 'large' is taken.")


def test_a_registration_that_takes_long_goes_on_when_it_is_sent_again(
    jobs: JobsClient, workflow: Path, name: str
) -> None:
    path, body = f"/workflows/{name}/versions/1", {"workflow": {"path": str(workflow)}}
    first = jobs.http.put(path, json=body, params={"wait": 0})
    assert first.status_code == 202
    job_id = first.json()["id"]
    jobs.wait(job_id, "completed")
    second = jobs.http.put(path, json=body, params={"wait": 0})
    assert second.status_code == 201
    assert jobs.http.get(f"/jobs/{job_id}").status_code == 404


def test_a_branch_becomes_the_commit_that_it_names(jobs: JobsClient, tmp_path: Path, name: str) -> None:
    repository = Repository(tmp_path / "repository.git")
    snakefile = "rule say:\n    output: 'said'\n    shell: 'echo {} > {{output}}'\n"
    commit = repository.commit({"Snakefile": snakefile.format("old").encode()})
    with serving_by_git(repository) as address:
        made = jobs.http.put(
            f"/workflows/{name}/versions/1", json={"workflow": {"git": address, "ref": "main"}}
        )
        assert made.status_code == 201, made.text
        assert (made.json()["commit"], made.json()["job"]["workflow"]["ref"]) == (commit, commit)

        repository.commit({"Snakefile": snakefile.format("new").encode()})
        job_id = jobs.submit(workflow={"name": name})
        assert jobs.wait(job_id, "completed")["commit"] == commit
    assert output(jobs, job_id, "said") == "old\n"


def test_a_bundle_is_kept_for_as_long_as_a_version_needs_it(
    jobs: JobsClient, workflow: Path, name: str
) -> None:
    bundle = _packed(jobs, workflow)
    made = jobs.http.put(f"/workflows/{name}/versions/1", json={"workflow": {"bundle": bundle}})
    assert made.status_code == 201, made.text
    job_id = jobs.submit(workflow={"name": name})
    jobs.wait(job_id, "completed")
    assert jobs.http.delete(f"/jobs/{job_id}").status_code == 204
    jobs.wait(jobs.submit(workflow={"name": name}), "completed")


def _packed(jobs: JobsClient, workflow: Path) -> str:
    archive = subprocess.run(["tar", "-c", "."], cwd=workflow, capture_output=True, check=True).stdout
    bundle: str = jobs.http.put("/bundles", content=archive).json()["bundle"]
    return bundle
