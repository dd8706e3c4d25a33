"""A job whose head is an ECS task without rights, and whose rule jobs are jobs of AWS Batch."""

import httpx

from flows.contract.spec import FLOW_NAME
from tests.ecs.conftest import EcsStack
from tests.ecs.rule_jobs import BATCH_ROLE, BUCKET, DEFINITION, GROUP, RULE_JOBS
from tests.flows.archives import workflow
from tests.flows.cluster.batch import QUEUE, Batch
from tests.support import JobsClient, wait_until

SLEEP = {"command": ["sleep", "60"]}
SNAKEFILE = """
rule all:
    input: "written.txt"
    output: "seen.txt"
    localrule: True
    shell: "cp {input} {output}"

rule write:
    output: "written.txt"
    threads: 3
    resources: mem_mb=9000
    shell: "echo {resources.mem_mb} > {output}"
"""


def test_the_head_gets_its_rights_from_the_facade_again_and_again(stack: EcsStack, jobs: JobsClient) -> None:
    """They are renewed after five seconds, so that a workflow of hours is no other."""
    bundle = jobs.http.put("/bundles", content=workflow({"Snakefile": SNAKEFILE})).json()["bundle"]
    job_id = jobs.submit(workflow={"bundle": bundle}, group=GROUP, cores=4)

    jobs.wait(job_id, "completed", seconds=240)

    assert jobs.statuses(job_id) == {"all": "completed", "write": "completed"}
    batch, rows = (
        Batch(stack.home / RULE_JOBS, stack.aws.environment),
        {row["rule"]: row for row in jobs.items(f"/jobs/{job_id}/tasks")},
    )
    write = batch.job(rows["write"]["external_id"])
    assert f"/{DEFINITION}:1" in write["jobDefinition"]
    assert write["tags"] == {"prefect-snakemake-job": job_id}
    size = {each["type"]: each["value"] for each in write["container"]["resourceRequirements"]}
    assert size == {"VCPU": "4", "MEMORY": "9216"}
    assert batch.text_of(f"{job_id}/seen.txt", BUCKET) == "9000\n"
    assert len(batch.definitions()) == 1, "the plugin has registered one, or removed that of the operator"
    assert stack.aws.sessions_of(BATCH_ROLE, f"job-{job_id}") > 1
    assert f"Job {job_id} may not" not in (stack.home / "facade" / "api.log").read_text()


def test_rule_jobs_whose_job_has_ended_are_ended_and_no_others(
    stack: EcsStack, prefect_api: httpx.Client
) -> None:
    """Their head was killed, and nobody else knows of them."""
    batch = Batch(stack.home / RULE_JOBS, stack.aws.environment)
    flow_id = prefect_api.get(f"/flows/name/{FLOW_NAME}").json()["id"]

    def rule_job_of(name: str) -> str:
        submitted = batch.client.submit_job(
            jobName=f"{name}-write", jobQueue=QUEUE, jobDefinition=DEFINITION, containerOverrides=SLEEP
        )
        return str(submitted["jobId"])

    def job_in(state: str) -> str:
        made = prefect_api.post("/flow_runs/", json={"flow_id": flow_id, "state": {"type": state}})
        return str(made.raise_for_status().json()["id"])

    others = [rule_job_of(job_in("RUNNING")), rule_job_of("of-somebody-else")]
    stray = rule_job_of(job_in("CRASHED"))

    wait_until(lambda: batch.job(stray)["status"] == "FAILED", "it has ended")
    assert batch.job(stray)["statusReason"] == "The job that it belongs to has ended."
    wait_until(lambda: {batch.job(each)["status"] for each in others} == {"RUNNING"}, "the others run")
    for each in others:
        batch.client.terminate_job(jobId=each, reason="The test is over.")
