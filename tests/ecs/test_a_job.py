"""A job's way through AWS: bundle from S3, a task of its size, outputs back through S3."""

import httpx

from tests.ecs.conftest import EcsStack
from tests.flows.archives import workflow
from tests.support import JobsClient

SNAKEFILE = """
rule all:
    input: "greeting.txt"

rule greet:
    output: "greeting.txt"
    shell: "echo Hello from {config[place]} > {output}"
"""


def test_a_job_runs_in_a_task_and_its_outputs_come_back(jobs: JobsClient, stack: EcsStack) -> None:
    bundle = jobs.http.put("/bundles", content=workflow({"Snakefile": SNAKEFILE})).json()["bundle"]

    job_id = jobs.submit(workflow={"bundle": bundle}, config={"place": "a task"}, name="in ECS")

    job = jobs.wait(job_id, "completed")
    assert job["progress"] == {"done": 2, "total": 2}
    assert jobs.statuses(job_id) == {"all": "completed", "greet": "completed"}
    (output,) = jobs.items(f"/jobs/{job_id}/outputs")
    address = jobs.http.get(output["url"]).headers["location"]
    assert httpx.get(address).text == "Hello from a task\n"
    (task,) = stack.aws.tasks_of(job_id)
    assert task["overrides"]["cpu"] == "1024"
