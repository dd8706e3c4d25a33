"""What people want to see of a run, from the real service: figures, graph, report, crate."""

import io
import json
import zipfile
from xml.etree import ElementTree

import pytest

from tests.flows.archives import workflow
from tests.support import JobsClient, Json

SNAKEFILE = """
rule all:
    input: "results/all.txt"

rule work:
    output: "results/{part}.txt"
    shell:
        "python -S -c 'held = bytes(range(256)) * (30 << 12); import time; time.sleep(4)'; "
        "echo > {output}"

rule join:
    input: "results/a.txt", "results/b.txt"
    output: report("results/all.txt")
    shell: "cat {input} > {output}"
"""


@pytest.fixture(scope="module")
def job(jobs: JobsClient) -> Json:
    """A job that has asked for a report, and was drawn while it ran."""
    bundle = jobs.http.put("/bundles", content=workflow({"Snakefile": SNAKEFILE})).json()["bundle"]
    job_id = jobs.submit(workflow={"bundle": bundle}, cores=2, options={"report": True}, config={"depth": 30})
    jobs.wait_for_running_rule_job(job_id)
    live = jobs.http.get(f"/jobs/{job_id}/graph.svg").text
    assert "running" in live
    ElementTree.fromstring(live)
    return jobs.wait(job_id, "completed")


def test_a_rule_job_tells_what_it_took(jobs: JobsClient, job: Json) -> None:
    tasks = {task["name"]: task for task in jobs.tasks(job["id"])}

    assert 0 < tasks["work[part=a]"]["cpu_seconds"] < 1.5
    assert 30 << 20 < tasks["work[part=a]"]["peak_memory_bytes"] < 60 << 20
    assert tasks["all"]["cpu_seconds"] is None


@pytest.mark.parametrize(("of", "name"), [("rules", "work → join"), ("jobs", "work[part=a] → join")])
def test_its_graph_has_the_workflows_edges(jobs: JobsClient, job: Json, of: str, name: str) -> None:
    svg = jobs.http.get(job["links"]["graph"], params={"of": of}).raise_for_status().text

    assert name in svg
    assert "4 completed" in svg


def test_its_report_is_an_output(jobs: JobsClient, job: Json) -> None:
    outputs = {output["path"]: output for output in jobs.items(f"/jobs/{job['id']}/outputs")}

    report = jobs.http.get(outputs["report.html"]["url"]).raise_for_status()
    assert "results/all.txt" in report.text
    assert len(report.content) == outputs["report.html"]["size_bytes"]


def test_its_crate_names_all_that_it_did(jobs: JobsClient, job: Json) -> None:
    content = jobs.http.get(job["links"]["ro_crate"]).raise_for_status().content
    with zipfile.ZipFile(io.BytesIO(content)) as crate:
        told = json.loads(crate.read("ro-crate-metadata.json"))["@graph"]

    actions = [entity["name"] for entity in told if entity["@type"] == "CreateAction"]
    files = {entity["name"] for entity in told if entity["@type"] == "File"}
    assert {"all", "join", "work[part=a]", "work[part=b]", f"Run of {job['name']}"} == set(actions)
    assert {"results/a.txt", "results/all.txt", "report.html"} <= files
