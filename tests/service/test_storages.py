"""Data in a storage: inputs and outputs of rules in S3, with the job's own credentials."""

from collections.abc import Iterator

import boto3
import httpx
import pytest

from deployments.local import LocalStack
from tests.flows.archives import workflow
from tests.flows.s3 import Bucket, s3_bucket
from tests.service.blocks import save_block
from tests.support import JobsClient, Json

CREDENTIALS = {
    "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "s3-access-key",
    "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "s3-secret-key",
}
SNAKEFILE = """
rule all:
    input: "counts/all.txt"

rule count:
    input: storage.s3("s3://BUCKET/in/reads.txt")
    output: "counts/reads.txt"
    shell: "wc -c < {input} > {output}"

rule join:
    input: "counts/reads.txt"
    output: "counts/all.txt"
    run:
        with open(output[0], "w") as joined:
            joined.write(open(input[0]).read())
"""


@pytest.fixture(scope="module")
def bucket(stack: LocalStack, prefect_api: httpx.Client) -> Iterator[Bucket]:
    """With an object in it, and a key to it in Prefect's blocks."""
    save_block(prefect_api, "s3-access-key", "the-key-of-the-lab")
    save_block(prefect_api, "s3-secret-key", "the-secret-of-the-lab")
    with s3_bucket() as bucket:
        s3 = boto3.client("s3", endpoint_url=bucket.environment["AWS_ENDPOINT_URL"])
        s3.put_object(Bucket=bucket.name, Key="in/reads.txt", Body=b"ACGT\n")
        yield bucket


def storage_in(bucket: Bucket) -> Json:
    settings = {"endpoint_url": bucket.environment["AWS_ENDPOINT_URL"], "retries": 1}
    return {"provider": "s3", "prefix": f"s3://{bucket.name}/project", "settings": settings}


def submit(jobs: JobsClient, bucket: Bucket, **spec: object) -> Json:
    snakefile = SNAKEFILE.replace("BUCKET", bucket.name)
    bundle = jobs.http.put("/bundles", content=workflow({"Snakefile": snakefile})).json()["bundle"]
    return jobs.wait(jobs.submit(workflow={"bundle": bundle}, group="large", **spec), "completed")


def test_inputs_and_outputs_are_in_the_storage_and_recorded_with_their_addresses(
    jobs: JobsClient, bucket: Bucket
) -> None:
    job = submit(jobs, bucket, default_storage=storage_in(bucket), secrets=CREDENTIALS)

    assert bucket.object_keys("project/") == {"project/counts/reads.txt", "project/counts/all.txt"}
    tasks = {task["name"]: task for task in jobs.tasks(job["id"])}
    assert tasks["count"]["inputs"] == [f"s3://{bucket.name}/in/reads.txt"]
    assert tasks["count"]["outputs"] == [f"s3://{bucket.name}/project/counts/reads.txt"]
    assert list(jobs.items(f"/jobs/{job['id']}/outputs")) == [], "the service does not copy them"


def test_a_group_has_a_storage_that_its_jobs_need_not_name(
    jobs: JobsClient, bucket: Bucket, prefect_api: httpx.Client
) -> None:
    deployment = prefect_api.get("/deployments/name/snakemake-job/large").json()
    defaults = {
        "default_storage": storage_in(bucket) | {"prefix": f"s3://{bucket.name}/of-the-group"},
        "secrets": CREDENTIALS,
    }
    prefect_api.patch(f"/deployments/{deployment['id']}", json={"parameters": defaults}).raise_for_status()
    try:
        submit(jobs, bucket)
    finally:
        prefect_api.patch(f"/deployments/{deployment['id']}", json={"parameters": {}}).raise_for_status()

    assert "of-the-group/counts/all.txt" in bucket.object_keys()


def test_a_storage_without_its_plugin_names_the_package_to_add(jobs: JobsClient) -> None:
    storage = {"provider": "gcs", "prefix": "gs://bucket"}

    job = jobs.wait(jobs.submit_workflow("touch", default_storage=storage), "failed")

    assert job["error"]["kind"] == "workflow"
    assert '"packages": ["snakemake-storage-plugin-gcs"]' in job["error"]["resolution"]
