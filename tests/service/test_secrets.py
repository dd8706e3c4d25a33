"""A secret reaches Snakemake and the rules of its job, and nobody else: not in any log, error or record."""

import io
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments.local import LocalStack
from tests.service.blocks import save_block
from tests.support import JobsClient, Json, wait_until

SECRET = 'sk-"quokka"-äöü/secret&of=the-lab'
SNAKEFILE = """
import os
envvars: "LAB_KEY"
print("the Snakefile prints", os.environ["LAB_KEY"])

rule all:
    input: "waited.txt", "ran.txt", "failed.txt"

rule wait:
    output: "waited.txt"
    log: "logs/wait.log"
    params: key=os.environ["LAB_KEY"]
    shell:
        'echo "a rule prints $LAB_KEY"; printf %s "$LAB_KEY" | base64 -w0; '
        'echo "in its log: $LAB_KEY" > {log}; '
        'while [ ! -e {config[go]} ]; do sleep 0.1; done; printf %s "$LAB_KEY" | wc -m > {output}'

rule run_block:
    output: "ran.txt"
    run:
        print("a run block prints", os.environ["LAB_KEY"])
        while not os.path.exists(config["go"]):
            shell("sleep 0.1")
        shell("touch {output}")

rule fail:
    input: "waited.txt", "ran.txt"
    output: "failed.txt"
    params: key=os.environ["LAB_KEY"]
    shell: ": {params.key:q}; echo $LAB_KEY > {output}.$LAB_KEY; exit 3"
"""


@pytest.fixture(scope="module")
def failed(
    stack: LocalStack,
    jobs: JobsClient,
    prefect_api: httpx.Client,
    tmp_path_factory: pytest.TempPathFactory,
) -> Json:
    """A job that says its secret wherever it can, and fails; `seen` is what every process was called with."""
    save_block(prefect_api, "lab-key", SECRET)
    workflow = tmp_path_factory.mktemp("secrets")
    (workflow / "Snakefile").write_text(SNAKEFILE)
    go = workflow / "go"
    job_id = jobs.submit(
        workflow={"path": str(workflow)},
        config={"go": str(go)},
        secrets={"LAB_KEY": "lab-key"},
        cores=2,
        options={"keep_going": True, "report": True},
    )
    wait_until(lambda: len(jobs.tasks(job_id, status="running")) == 2, "both rule jobs run")
    processes = command_lines()
    live = stack_log(stack, job_id)
    go.touch()
    return {**jobs.wait(job_id, "failed"), "processes": processes, "live": live}


def command_lines() -> str:
    """What every process of the machine was called with."""
    return "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))


def stack_log(stack: LocalStack, job_id: str) -> httpx.Response:
    return httpx.get(f"{stack.settings.api_url}/ga4gh/wes/v1/runs/{job_id}/log", timeout=10)


def is_revealed(text: str) -> bool:
    """Whether the secret or a part of it is there, as it is or encoded."""
    return any(part in text for part in ("quokka", "of=the-lab", b64encode(SECRET.encode()).decode()[:20]))


def answers(jobs: JobsClient, prefect_api: httpx.Client, job_id: str) -> Iterator[tuple[str, str]]:
    """Everything that the service and Prefect say about the job, by name."""
    http = jobs.http
    for path in ("", "/graph.svg", "/tasks", "/outputs", "/logs"):
        yield path, http.get(f"/jobs/{job_id}{path}").raise_for_status().text
    for task in jobs.tasks(job_id):
        yield task["name"], http.get(f"/jobs/{job_id}/tasks/{task['id']}").text
        yield f"log of {task['name']}", jobs.log(job_id, task["id"])
    for output in jobs.items(f"/jobs/{job_id}/outputs"):
        yield output["path"], http.get(output["url"]).text
    crate = http.get(f"/jobs/{job_id}/ro-crate").raise_for_status().content
    with zipfile.ZipFile(io.BytesIO(crate)) as files:
        for name in files.namelist():
            yield name, files.read(name).decode()
    yield "WES", http.get(f"/ga4gh/wes/v1/runs/{job_id}").text
    yield "WES log", http.get(f"/ga4gh/wes/v1/runs/{job_id}/log").raise_for_status().text
    yield "flow run", prefect_api.get(f"/flow_runs/{job_id}").text
    body: Any = {"flow_runs": {"id": {"any_": [job_id]}}}
    yield "task runs", prefect_api.post("/task_runs/filter", json=body).text
    body = {"logs": {"flow_run_id": {"any_": [job_id]}}}
    yield "logs", prefect_api.post("/logs/filter", json=body).text


def test_rules_and_run_blocks_have_the_secret(jobs: JobsClient, failed: Json) -> None:
    assert failed["error"]["rule"] == "fail"
    text = jobs.http.get(f"/jobs/{failed['id']}/outputs/waited.txt").text
    assert int(text) == len(SECRET)


def test_nothing_that_anybody_can_ask_for_has_it(
    jobs: JobsClient, prefect_api: httpx.Client, failed: Json
) -> None:
    said = dict(answers(jobs, prefect_api, failed["id"]))

    assert [name for name, text in said.items() if is_revealed(text)] == []
    assert "a rule prints ***" in said["log of wait"]
    assert "a run block prints ***" in said["log of run_block"]
    assert "the Snakefile prints ***" in said["WES log"]
    assert "***" in said["fail"], "its command"
    assert "***" in failed["error"]["message"]


def test_no_file_has_it_that_is_published(stack: LocalStack, failed: Json) -> None:
    directory = stack.settings.home / "jobs" / failed["id"]
    files = [path for path in directory.iterdir() if path.is_file()]

    assert {"snakemake.log", "events.jsonl", "outputs.json", "report.html"} <= {path.name for path in files}
    assert [path.name for path in files if is_revealed(path.read_text(errors="replace"))] == []
    assert (directory / "work" / "logs" / "wait.log").read_text() == "in its log: ***\n"


def test_no_command_line_has_it_and_no_log_while_the_job_runs(failed: Json) -> None:
    assert "run_block" in failed["processes"], "the Snakemake of the run block"
    assert not is_revealed(failed["processes"])
    assert failed["live"].status_code == 404


@pytest.mark.parametrize(
    ("block", "value", "reason"),
    [
        ("lab-absent", None, "is not in Prefect"),
        ("lab-short", "abc", "has no usable value"),
    ],
)
def test_a_block_that_is_missing_or_unusable_is_the_operators_to_correct(
    jobs: JobsClient, prefect_api: httpx.Client, block: str, value: str | None, reason: str
) -> None:
    if value is not None:
        save_block(prefect_api, block, value)

    job = jobs.wait(jobs.submit_workflow("touch", secrets={"LAB_KEY": block}), "failed")

    assert job["error"]["kind"] == "system"
    assert f"'secret/{block}' {reason}" in job["error"]["message"]
    assert "operator" in job["error"]["resolution"]


def test_the_flow_checks_again_what_the_facade_did_not_see(
    jobs: JobsClient, prefect_api: httpx.Client, tmp_path: Path
) -> None:
    save_block(prefect_api, "of-another-group", SECRET)
    deployment = prefect_api.get("/deployments/name/snakemake-job/default").json()["id"]
    (tmp_path / "Snakefile").write_text("rule a:\n    shell: 'true'\n")
    parameters = {"workflow": {"path": str(tmp_path)}, "secrets": {"KEY": "of-another-group"}}
    run = prefect_api.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": parameters})

    job = jobs.wait(run.raise_for_status().json()["id"], "failed")

    assert job["error"]["kind"] == "workflow"
    assert "may not use the Secret block 'of-another-group'" in job["error"]["message"]
    assert "JOBS_SECRET_BLOCKS" in job["error"]["resolution"]
