"""The disk of a task goes with it; its job is resumed all the same, and does only what is incomplete."""

from pathlib import Path

import pytest

from tests.ecs.aws import CLUSTER
from tests.ecs.conftest import EcsStack
from tests.flows.archives import workflow
from tests.service.test_resuming import resume
from tests.support import JobsClient, wait_until

SNAKEFILE = """
rule all:
    input: "report.txt"

rule measure:
    output: "measured.txt"
    shell: "echo run >> {config[tally]}; echo 42 > {output}"

rule report:
    input: "measured.txt"
    output: "report.txt"
    shell: "test -e {config[permit]} || {config[otherwise]}; cp {input} {output}"
"""


@pytest.mark.parametrize("ending", ["failed", "cancelled", "stopped"])
def test_only_what_is_incomplete_is_done_again(
    jobs: JobsClient, stack: EcsStack, tmp_path: Path, ending: str
) -> None:
    permit, tally = tmp_path / "permit", tmp_path / "tally"
    bundle = jobs.http.put("/bundles", content=workflow({"Snakefile": SNAKEFILE})).json()["bundle"]
    otherwise = "exit 1" if ending == "failed" else "sleep 300"
    config = {"permit": str(permit), "tally": str(tally), "otherwise": otherwise}
    first = jobs.submit(workflow={"bundle": bundle}, config=config)
    end(jobs, stack, first, ending)
    jobs.wait(first, "cancelled" if ending == "cancelled" else "failed")
    container = stack.agent.container_of(first)
    container.process.wait(30)
    permit.touch()

    job = jobs.wait(resume(jobs, first)["id"], "completed")

    wait_until(lambda: not container.disk.exists(), "the disk is gone")
    assert jobs.statuses(job["id"]) == {"all": "completed", "report": "completed", "measure": "skipped"}
    assert tally.read_text() == "run\n"
    assert [output["path"] for output in jobs.items(f"/jobs/{job['id']}/outputs")] == [
        "measured.txt",
        "report.txt",
    ]


def end(jobs: JobsClient, stack: EcsStack, job_id: str, ending: str) -> None:
    """While its second rule runs; one that fails does so by itself."""
    if ending == "failed":
        return
    wait_until(lambda: jobs.statuses(job_id).get("report") == "running", "the second rule runs")
    if ending == "cancelled":
        jobs.http.post(f"/jobs/{job_id}/cancel")
    else:
        (task,) = stack.aws.tasks_of(job_id)
        stack.aws.ecs.stop_task(cluster=CLUSTER, task=task["taskArn"], reason="The subnet moves.")
