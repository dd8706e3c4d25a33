"""A real workflow through GA4GH WES: attached, run, and its logs and outputs fetched by their addresses."""

import json

import httpx

from deployments.local import LocalStack
from tests.support import JobsClient, wait_until

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
