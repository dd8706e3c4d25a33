"""A job whose head is an ECS task without rights, and whose rule jobs are jobs of AWS Batch."""

from tests.ecs.conftest import EcsStack
from tests.ecs.rule_jobs import BATCH_ROLE, BUCKET, DEFINITION, GROUP, RULE_JOBS
from tests.flows.archives import workflow
from tests.flows.cluster.batch import Batch
from tests.support import JobsClient

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
