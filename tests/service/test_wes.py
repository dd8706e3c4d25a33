"""A real workflow through GA4GH WES: attached, run, and its logs and outputs fetched by their addresses."""

import json
from pathlib import Path

import httpx
import pytest

from deployments.local import LocalStack
from tests.flows.git_servers import Repository, serving_by_git
from tests.support import JobsClient, Json, wait_until

SNAKEFILE = """
rule all:
    input: expand("greetings/{name}.txt", name=config["names"])

include: "rules/greet.smk"
"""
RULES = """
rule greet:
    output: "greetings/{name}.txt"
    shell: "echo 'Hello, {wildcards.name}!' | tee {output}"
"""


def test_a_workflow_is_attached_run_and_fetched(stack: LocalStack, jobs: JobsClient) -> None:
    form = {
        "workflow_type": "SMK",
        "workflow_type_version": "1.0",
        "workflow_url": "workflow/Snakefile",
        "workflow_params": json.dumps({"names": ["Ada", "Emmy"]}),
        "workflow_engine_parameters": json.dumps({"cores": "2"}),
    }
    attached = [
        ("workflow_attachment", ("workflow/Snakefile", SNAKEFILE.encode())),
        ("workflow_attachment", ("workflow/rules/greet.smk", RULES.encode())),
    ]
    with httpx.Client(base_url=f"{stack.settings.api_url}/ga4gh/wes/v1", timeout=30) as wes:
        run_id = wes.post("/runs", data=form, files=attached).raise_for_status().json()["run_id"]
        wait_until(
            lambda: wes.get(f"/runs/{run_id}/status").json()["state"] == "COMPLETE", "the run is complete"
        )

        log = wes.get(f"/runs/{run_id}").json()
        assert log["run_log"]["exit_code"] == 0
        assert log["run_log"]["start_time"] <= log["run_log"]["end_time"]
        assert "greetings/Ada.txt" in wes.get(log["run_log"]["stderr"]).text
        assert wes.get(log["outputs"]["greetings/Emmy.txt"]).text == "Hello, Emmy!\n"
        tasks = {task["name"]: task for task in wes.get(log["task_logs_url"]).json()["task_logs"]}
        assert set(tasks) == {"all", "greet[name=Ada]", "greet[name=Emmy]"}
        assert "Hello, Ada!" in wes.get(tasks["greet[name=Ada]"]["stdout"]).text
    assert jobs.get(run_id)["status"] == "completed"


@pytest.fixture
def form() -> Json:
    return {
        "workflow_type": "SMK",
        "workflow_type_version": "1.0",
        "workflow_params": json.dumps({"names": ["Ada"]}),
    }


def run(stack: LocalStack, form: Json) -> Json:
    """The run log of a run that is complete."""
    with httpx.Client(base_url=f"{stack.settings.api_url}/ga4gh/wes/v1", timeout=30) as wes:
        # In WES every submission is a multipart form, also without attachments.
        fields = {name: (None, value) for name, value in form.items()}
        run_id = wes.post("/runs", files=fields).raise_for_status().json()["run_id"]
        wait_until(
            lambda: wes.get(f"/runs/{run_id}/status").json()["state"] == "COMPLETE", "the run is complete"
        )
        log: Json = wes.get(f"/runs/{run_id}").json()
        assert wes.get(log["outputs"]["greetings/Ada.txt"]).text == "Hello, Ada!\n"
    return log


def test_a_workflow_is_run_from_a_git_address(
    stack: LocalStack, jobs: JobsClient, tmp_path: Path, form: Json
) -> None:
    repository = Repository(tmp_path / "repository.git")
    files = {"greet/workflow/Snakefile": SNAKEFILE, "greet/workflow/rules/greet.smk": RULES}
    commit = repository.commit({name: text.encode() for name, text in files.items()})
    repository.tag("1.0", commit, is_annotated=False)
    parameters = {"ref": "1.0", "subdir": "greet"}

    with serving_by_git(repository) as address:
        form |= {"workflow_url": f"git+{address}", "workflow_engine_parameters": json.dumps(parameters)}
        log = run(stack, form)

    assert jobs.get(log["run_id"])["commit"] == commit
    assert log["request"]["workflow_url"] == f"git+{address}"
    assert log["request"]["workflow_engine_parameters"] == parameters


def test_a_workflow_is_run_from_a_directory(stack: LocalStack, tmp_path: Path, form: Json) -> None:
    (tmp_path / "workflow" / "rules").mkdir(parents=True)
    (tmp_path / "workflow" / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "workflow" / "rules" / "greet.smk").write_text(RULES)

    log = run(stack, form | {"workflow_url": f"file://{tmp_path}"})

    assert log["request"]["workflow_url"] == f"file://{tmp_path}"
