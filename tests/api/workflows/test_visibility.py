"""A registered workflow belongs to its group: for others it does not exist, and neither do its jobs."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate

from api.auth.callers import TokenScope
from api.auth.tokens import TokenFile
from api.settings import Settings
from api.workflows.registry import Registry
from flows.contract.registered import RegisteredVersion, WorkflowDescription
from flows.contract.spec import FLOW_NAME, Label
from flows.contract.storage import LocalStorage
from tests.api.support import facade

NAME = "of-large"
VERSION = RegisteredVersion(
    name=NAME,
    version="1",
    group="large",
    registered_at=datetime.now(UTC),
    sha256="",
    registered_by="somebody",
    job={"workflow": {"git": "https://github.com/owner/repository"}},
    description=WorkflowDescription(config_schema={"properties": {"depth": {"type": "integer"}}}),
)


@pytest.fixture(scope="module")
async def job_of_large(prefect: PrefectClient, home: Path) -> str:
    """A job of a workflow that `large` has registered, as Prefect's form makes it."""
    Registry(LocalStorage(home)).write(VERSION)
    await prefect.create_work_pool(WorkPoolCreate(name="of-workflows", type="process"))
    deployment = {
        "name": NAME,
        "flow_id": str(await prefect.create_flow_from_name(FLOW_NAME)),
        "version": "1",
        "work_pool_name": "of-workflows",
        "work_queue_name": "large",
        "labels": {Label.WORKFLOW_NAME: NAME, Label.WORKFLOW_VERSION: "1"},
        "enforce_parameter_schema": False,
    }
    made = await prefect.request("POST", "/deployments/", json=deployment)
    flow_run = await prefect.create_flow_run_from_deployment(made.json()["id"])
    return str(flow_run.id)


@pytest.fixture(scope="module")
async def callers(
    anyio_backend: str, prefect_api_url: str, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """A client for each group, with a token of it."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.json"
    tokens = {
        group: TokenFile(file).create(group, (group,), TokenScope.SUBMIT) for group in ("default", "large")
    }
    settings = Settings(home=home, tokens_file=file)
    async with facade(prefect_api_url, settings) as client:
        clients = {}
        for group, token in tokens.items():
            headers = {"Authorization": f"Bearer {token}"}
            clients[group] = httpx.AsyncClient(
                transport=client._transport, base_url=client.base_url, headers=headers
            )
        yield clients


async def test_the_group_of_a_workflow_sees_it_and_its_jobs(
    callers: dict[str, httpx.AsyncClient], job_of_large: str
) -> None:
    of_large = callers["large"]
    assert NAME in [each["name"] for each in (await of_large.get("/workflows")).json()["items"]]
    job = (await of_large.get(f"/jobs/{job_of_large}")).json()
    assert (job["group"], job["workflow"]) == ("large", {"name": NAME, "version": "1"})
    listed = (await of_large.get("/jobs", params={"workflow": NAME})).json()["items"]
    assert [each["id"] for each in listed] == [job_of_large]
    in_group = (await of_large.get("/jobs", params={"group": "large", "limit": 200})).json()["items"]
    assert job_of_large in [each["id"] for each in in_group]
    made = await of_large.post("/jobs", json={"workflow": {"name": NAME}, "config": {"depth": 3}})
    assert (made.status_code, made.json()["group"]) == (201, "large")


async def test_for_other_groups_neither_exists(
    callers: dict[str, httpx.AsyncClient], job_of_large: str
) -> None:
    of_default = callers["default"]
    assert (await of_default.get("/workflows")).json()["items"] == []
    requests = [
        ("GET", f"/jobs/{job_of_large}", 404),
        ("POST", f"/jobs/{job_of_large}/cancel", 404),
        ("GET", f"/workflows/{NAME}", 404),
        ("GET", f"/workflows/{NAME}/versions/1", 404),
        ("GET", f"/workflows/{NAME}/usage", 404),
        ("POST", f"/workflows/{NAME}/versions/1/retire", 404),
    ]
    for method, path, status in requests:
        assert (await of_default.request(method, path)).status_code == status, path
    unknown = await of_default.post("/jobs", json={"workflow": {"name": NAME}})
    assert unknown.json()["type"].endswith(":unknown-workflow")
    assert (await of_default.get("/jobs", params={"workflow": NAME})).status_code == 422
    taken = await of_default.put(
        f"/workflows/{NAME}/versions/2", json={"workflow": {"git": "https://github.com/owner/repository"}}
    )
    assert (taken.status_code, taken.json()["detail"]) == (409, f"The name '{NAME}' is taken.")
