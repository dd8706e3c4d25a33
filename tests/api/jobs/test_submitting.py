"""A submitted spec becomes one job: a flow run of its group's deployment, with the same id."""

from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from flows.contract.spec import Label
from tests.api.support import get, submit

pytestmark = pytest.mark.anyio


async def test_the_answer_says_where_the_job_is(api: httpx.AsyncClient) -> None:
    response = await api.post("/jobs", json={"engine": "mock", "name": "trio-1", "tags": {"project": "x"}})

    job = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == job["links"]["self"] == f"/jobs/{job['id']}"
    assert (job["name"], job["group"], job["status"], job["engine"]) == (
        "trio-1",
        "default",
        "pending",
        "mock",
    )
    assert job["progress"] == {"done": 0, "total": 0}
    assert job["started_at"] is job["finished_at"] is job["error"] is None
    assert job["created_at"].endswith("Z")
    assert job == await get(api, job["links"]["self"])


async def test_every_link_of_a_job_leads_somewhere(api: httpx.AsyncClient, prefect_api_url: str) -> None:
    job = await get(api, f"/jobs/{await submit(api)}")

    links = job["links"]
    for name in ("tasks", "logs", "outputs"):
        assert await get(api, links[name]) == {"items": [], "next_cursor": None}
    assert links["prefect"] == f"{prefect_api_url.removesuffix('/api')}/runs/flow-run/{job['id']}"


async def test_the_flow_run_carries_what_was_submitted_and_nothing_else(
    api: httpx.AsyncClient, prefect: PrefectClient
) -> None:
    job_id = await submit(api, config={"samples": ["A"]}, tags={"project": "x", "empty": ""}, cores=2)

    flow_run = await prefect.read_flow_run(job_id)
    assert flow_run.parameters == {"engine": "mock", "config": {"samples": ["A"]}, "cores": 2}
    assert sorted(flow_run.tags) == ["empty:", "project:x"]
    assert len(str(flow_run.labels[Label.SPEC_SHA256])) == 64
    assert flow_run.idempotency_key


async def test_a_job_without_a_name_gets_one(api: httpx.AsyncClient) -> None:
    job = await get(api, f"/jobs/{await submit(api)}")

    assert job["name"]


async def test_a_job_goes_to_the_group_that_it_names(api: httpx.AsyncClient, prefect: PrefectClient) -> None:
    job_id = await submit(api, group="large")

    deployment = await prefect.read_deployment_by_name("snakemake-job/large")
    assert (await prefect.read_flow_run(job_id)).deployment_id == deployment.id
    assert (await get(api, f"/jobs/{job_id}"))["group"] == "large"


async def test_a_group_can_be_used_as_soon_as_it_is_deployed(
    api: httpx.AsyncClient, prefect: PrefectClient
) -> None:
    await submit(api)
    flow_id = (await prefect.read_flow_by_name("snakemake-job")).id
    deployment_id = await prefect.create_deployment(flow_id, "brand-new", enforce_parameter_schema=False)
    try:
        job = await get(api, f"/jobs/{await submit(api, group='brand-new')}")
    finally:
        await prefect.delete_deployment(deployment_id)

    assert job["group"] == "brand-new"


async def test_a_group_that_is_deployed_anew_goes_on_taking_jobs(
    api: httpx.AsyncClient, prefect: PrefectClient
) -> None:
    flow_id = (await prefect.read_flow_by_name("snakemake-job")).id
    first = await prefect.create_deployment(flow_id, "moving", enforce_parameter_schema=False)
    await submit(api, group="moving")
    await prefect.delete_deployment(first)
    second = await prefect.create_deployment(flow_id, "moving", enforce_parameter_schema=False)
    try:
        job_id = await submit(api, group="moving")
        assert (await prefect.read_flow_run(job_id)).deployment_id == second
    finally:
        await prefect.delete_deployment(second)


@pytest.mark.parametrize("snakefile", ["Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile"])
async def test_a_workflow_under_a_root_is_accepted_wherever_snakemake_finds_its_snakefile(
    api: httpx.AsyncClient, workflow_root: Path, snakefile: str, tmp_path: Path
) -> None:
    workflow = workflow_root / tmp_path.name
    (workflow / snakefile).parent.mkdir(parents=True)
    (workflow / snakefile).touch()

    response = await api.post("/jobs", json={"workflow": {"path": str(workflow)}})

    assert response.status_code == 201
    assert response.json()["engine"] == "snakemake"


async def test_tags_come_back_as_they_were_given(api: httpx.AsyncClient) -> None:
    tags = {"a": "b:c", "empty": "", "name": "Zoë Ωmega, 'quoted'"}

    job_id: UUID = await submit(api, tags=tags)

    assert (await get(api, f"/jobs/{job_id}"))["tags"] == tags


async def test_a_tag_that_was_set_in_prefect_has_no_value(
    api: httpx.AsyncClient, prefect: PrefectClient
) -> None:
    job_id = await submit(api)
    await prefect.update_flow_run(job_id, tags=["urgent"])

    assert (await get(api, f"/jobs/{job_id}"))["tags"] == {"urgent": ""}


async def test_a_number_that_is_let_in_can_be_read_again(api: httpx.AsyncClient) -> None:
    """Prefect answers 500 for every list that holds a job with an integer of more than 64 bits."""
    config = {"large": 2**63 - 1, "small": -(2**63) + 1, "float": 9.2e18, "tiny": 1e-300}

    job_id = await submit(api, config=config, resources={"mem_mb": 2**63 - 1}, mock={"seed": -(2**63) + 1})

    assert (await get(api, "/jobs", limit=1))["items"][0]["id"] == str(job_id)
