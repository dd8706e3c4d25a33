"""Every rule job of a workflow is a Prefect task run, with its state, its logs and its edges."""

from pathlib import Path

import httpx

from tests.support import JobsClient

SNAKEFILE = """
rule report:
    input: "counted.txt"
    output: "report.txt"
    threads: 2
    shell: "echo reporting; cp {input} {output}"

rule count:
    input: "letters.txt"
    output: "counted.txt"
    retries: 1
    shell: "test -e tried || {{ touch tried; echo 'not yet' >&2; exit 7; }}; wc -c < {input} > {output}"

rule write:
    output: "letters.txt"
    shell: "echo abc > {output}"
"""


def test_rule_jobs_tell_what_they_did(jobs: JobsClient, prefect_api: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    job_id = jobs.submit(workflow={"path": str(tmp_path)}, cores=2)
    jobs.wait(job_id, "completed")
    report, count, write = (jobs.tasks(job_id, rule=rule)[0] for rule in ("report", "count", "write"))

    # What ran, on what, with what, and why.
    assert report["threads"] == 2
    assert report["shell"] == "echo reporting; cp counted.txt report.txt"
    assert (report["inputs"], report["outputs"]) == (["counted.txt"], ["report.txt"])
    assert "counted.txt" in report["reason"]

    # When it ran.
    assert write["finished_at"] <= count["started_at"] <= count["finished_at"] <= report["started_at"]

    # A retry is a second attempt of the same rule job, and the log has both.
    assert (write["attempts"], count["attempts"]) == (1, 2)
    log = jobs.log(job_id, count["id"])
    assert "not yet" in log
    assert "Attempt 1 failed" in log
    assert "Attempt 2" in log

    # What waits for what, as Prefect draws it.
    graph = prefect_api.get(f"/flow_runs/{job_id}/graph-v2").json()
    parents = {node["label"]: [parent["id"] for parent in node["parents"]] for _, node in graph["nodes"]}
    assert parents == {"report": [count["id"]], "count": [write["id"]], "write": []}
