"""A service that keeps things in S3: facade and worker share nothing but the bucket (moto's server)."""

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prefect.client.schemas.objects import StateType

from api.settings import Settings
from api.wes.routes import MOST_LOG_BYTES
from flows.contract.spec import ExecutionSpec
from flows.contract.storage import job_key, open_storage
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace
from tests.api.support import Worker, facade, get, submit, the_problem
from tests.flows.archives import workflow
from tests.flows.s3 import Bucket, s3_bucket

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_bucket() as bucket:
        yield bucket


@pytest.fixture
async def in_s3(prefect_api_url: str, bucket: Bucket, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(home=tmp_path / "facade", storage_url=f"s3://{bucket.name}/service")
    async with facade(prefect_api_url, settings) as client:
        yield client


@pytest.fixture
def worker_settings(bucket: Bucket, tmp_path: Path) -> WorkspaceSettings:
    return WorkspaceSettings(home=tmp_path / "worker", storage_url=f"s3://{bucket.name}/service")


@pytest.fixture
async def job_id(in_s3: httpx.AsyncClient, worker_settings: WorkspaceSettings) -> UUID:
    """A job whose outputs the worker has published."""
    job_id = await submit(in_s3)
    workspace = Workspace(worker_settings, job_id)
    (workspace.work / "results").mkdir(parents=True)
    (workspace.work / "results" / "Zoë's calls.vcf").write_text("##fileformat=VCFv4.2\n")
    workspace.publish(["results/Zoë's calls.vcf"])
    return job_id


async def test_an_output_is_had_from_the_bucket_by_an_address_that_needs_no_credentials(
    in_s3: httpx.AsyncClient, job_id: UUID, bucket: Bucket
) -> None:
    (output,) = (await get(in_s3, f"/jobs/{job_id}/outputs"))["items"]
    assert output["path"] == "results/Zoë's calls.vcf"

    redirect = await in_s3.get(output["url"])
    assert (redirect.status_code, redirect.headers["cache-control"]) == (307, "no-store")
    location = redirect.headers["location"]
    assert "X-Amz-Expires=300" in location
    assert bucket.secrets[0] not in location

    async with httpx.AsyncClient() as anybody:
        whole = await anybody.get(location)
        part = await anybody.get(location, headers={"Range": "bytes=2-11"})
        head = await anybody.head((await in_s3.head(output["url"])).headers["location"])
    assert whole.text == "##fileformat=VCFv4.2\n"
    assert (part.status_code, part.text) == (206, "fileformat")
    assert head.headers["content-length"] == "21"


async def test_a_file_whose_name_is_not_utf_8_can_be_had(
    in_s3: httpx.AsyncClient, worker_settings: WorkspaceSettings
) -> None:
    job_id = await submit(in_s3)
    workspace = Workspace(worker_settings, job_id)
    workspace.work.mkdir(parents=True)
    (workspace.work / "b\udcffd.txt").write_text("odd")
    workspace.publish(["b\udcffd.txt"])

    (output,) = (await get(in_s3, f"/jobs/{job_id}/outputs"))["items"]
    async with httpx.AsyncClient(follow_redirects=True) as anybody:
        content = await anybody.get((await in_s3.get(output["url"])).headers["location"])

    assert (output["path"], content.text) == ("b%FFd.txt", "odd")


async def test_only_what_the_manifest_lists_has_an_address(in_s3: httpx.AsyncClient, job_id: UUID) -> None:
    for path in ("outputs.json", "../outputs.json", "..%2foutputs.json", "results", ""):
        the_problem(await in_s3.get(f"/jobs/{job_id}/outputs/{path}"), 404)


async def test_a_job_that_has_published_nothing_has_no_outputs(in_s3: httpx.AsyncClient) -> None:
    job_id = await submit(in_s3)
    assert await get(in_s3, f"/jobs/{job_id}/outputs") == {"items": [], "next_cursor": None}


async def test_a_job_that_is_removed_leaves_nothing_in_the_bucket(
    in_s3: httpx.AsyncClient, worker: Worker, bucket: Bucket, job_id: UUID
) -> None:
    """Not even where it has left a directory to its successor."""
    other = job_key(await submit(in_s3), "outputs.json")
    storage = open_storage(Settings(storage_url=f"s3://{bucket.name}/service"))
    for key in (other, job_key(job_id, "work.tar"), job_key(job_id, "snakemake.log")):
        storage.put(key, io.BytesIO(b"x"))
    await worker.bring_to(job_id, StateType.FAILED)
    assert len(bucket.object_keys(f"service/jobs/{job_id}/")) == 4

    response = await in_s3.delete(f"/jobs/{job_id}")

    assert (response.status_code, response.content) == (204, b"")
    assert bucket.object_keys(f"service/jobs/{job_id}/") == set()
    assert f"service/{other}" in bucket.object_keys()
    the_problem(await in_s3.get(f"/jobs/{job_id}"), 404)


async def test_what_a_pending_job_is_to_go_on_with_stays_in_the_bucket(
    in_s3: httpx.AsyncClient, worker: Worker, bucket: Bucket, worker_settings: WorkspaceSettings
) -> None:
    archive = workflow({"Snakefile": "rule resumed:\n"})
    bundle = (await in_s3.put("/bundles", content=archive)).json()["bundle"]
    job_id = await submit(in_s3, engine="snakemake", workflow={"bundle": bundle})
    workspace = Workspace(worker_settings, job_id)
    workspace.work.mkdir(parents=True)
    workspace.publish([])
    workspace.keep()
    await worker.bring_to(job_id, StateType.FAILED)
    successor = (await in_s3.post(f"/jobs/{job_id}/resume")).json()["id"]

    problem = the_problem(await in_s3.delete(f"/jobs/{job_id}"), 409)

    assert successor in problem["detail"]
    assert f"service/jobs/{job_id}/work.tar" in bucket.object_keys()


async def test_the_end_of_a_log_is_had_from_the_bucket(
    in_s3: httpx.AsyncClient, bucket: Bucket, job_id: UUID
) -> None:
    log = job_key(job_id, "snakemake.log")
    the_log = f"/ga4gh/wes/v1/runs/{job_id}/log"
    assert (await in_s3.get(the_log)).status_code == 404
    storage = open_storage(Settings(storage_url=f"s3://{bucket.name}/service"))
    storage.put(log, io.BytesIO(b"begins" + b"x" * MOST_LOG_BYTES))
    assert (await in_s3.get(the_log)).content == b"x" * MOST_LOG_BYTES


async def test_a_bundle_goes_from_the_facade_to_the_worker_by_way_of_the_bucket(
    in_s3: httpx.AsyncClient, worker_settings: WorkspaceSettings
) -> None:
    archive = workflow({"Snakefile": "rule all:\n"})
    first = await in_s3.put("/bundles", content=archive)
    second = await in_s3.put("/bundles", content=archive)
    assert (first.status_code, second.status_code) == (201, 200)

    spec = {"workflow": {"bundle": first.json()["bundle"]}}
    submitted = await in_s3.post("/jobs", json=spec)
    assert submitted.status_code == 201, submitted.text
    workspace = Workspace(worker_settings, UUID(submitted.json()["id"]))
    workspace.directory.mkdir(parents=True)
    workspace.stage(ExecutionSpec.model_validate(spec))

    assert (workspace.work / "Snakefile").read_text() == "rule all:\n"


async def test_a_bucket_that_is_not_there_is_the_operators_business(
    prefect_api_url: str, bucket: Bucket, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, storage_url="s3://no-such-bucket")
    async with facade(prefect_api_url, settings) as api:
        response = await api.put("/bundles", content=workflow({"Snakefile": ""}))

    problem = the_problem(response, 503)
    assert problem["type"].endswith(":storage-unavailable")
    assert "no-such-bucket" not in response.text
    assert "the service's log" in problem["resolution"]
    assert response.headers["retry-after"]
