"""`/readyz` says which part is not ready, and costs nothing however often it is asked."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from starlette.responses import Response

from api.auth.callers import TokenScope
from api.auth.tokens import TokenFile
from api.settings import Settings
from flows.contract.spec import FLOW_NAME
from tests.api.servers import free_port, serving
from tests.api.support import GROUPS, facade

pytestmark = pytest.mark.anyio


async def readiness(client: httpx.AsyncClient, status: int) -> tuple[str, dict[str, Any]]:
    """The status, and every part by its name."""
    response = await client.get("/readyz")
    assert response.status_code == status, response.text
    answer = response.json()
    return answer["status"], {part["name"]: part for part in answer["parts"]}


async def test_a_service_without_workers_is_degraded_and_says_so(prefect_api_url: str, home: Path) -> None:
    async with facade(prefect_api_url, Settings(home=home)) as client:
        status, parts = await readiness(client, 200)

    assert status == "degraded"
    assert parts["prefect"]["ready"]
    assert parts["storage"]["ready"]
    assert not parts["workers"]["ready"]
    assert parts["workers"]["detail"].startswith("0 of ")


async def test_a_group_with_a_worker_is_counted(
    prefect: PrefectClient, prefect_api_url: str, home: Path
) -> None:
    await prefect.create_work_pool(WorkPoolCreate(name="served", type="snakemake"), overwrite=True)
    await prefect.send_worker_heartbeat("served", "a-worker", heartbeat_interval_seconds=30)
    flow_id = await prefect.create_flow_from_name(FLOW_NAME)
    deployment_id = await prefect.create_deployment(
        flow_id, "served", work_pool_name="served", enforce_parameter_schema=False
    )
    try:
        async with facade(prefect_api_url, Settings(home=home)) as client:
            _, parts = await readiness(client, 200)
    finally:
        await prefect.delete_deployment(deployment_id)
        await prefect.delete_work_pool("served")

    assert parts["workers"]["detail"].startswith("1 of ")


async def test_a_service_without_prefect_is_not_ready(home: Path) -> None:
    settings = Settings(home=home, read_timeout_seconds=0.3)
    async with facade(f"http://127.0.0.1:{free_port()}/api", settings) as client:
        status, parts = await readiness(client, 503)
        assert (await client.get("/livez")).status_code == 200

    assert status == "not ready"
    assert {name for name, part in parts.items() if part["ready"]} == {"storage"}


async def test_a_prefect_without_its_database_is_told_from_one_that_is_away(home: Path) -> None:
    """It answers every request with 500 then, as the real one does."""
    settings = Settings(home=home, read_timeout_seconds=3)
    async with serving(Response(status_code=500)) as url, facade(f"{url}/api", settings) as client:
        _, parts = await readiness(client, 503)

    assert parts["prefect"]["detail"] == "Prefect answered 500: its database may be away, or busy."


async def test_a_service_without_its_storage_is_not_ready(prefect_api_url: str, tmp_path: Path) -> None:
    async with facade(prefect_api_url, Settings(home=tmp_path / "gone")) as client:
        status, parts = await readiness(client, 503)

    assert status == "not ready"
    assert "JOBS_HOME" in parts["storage"]["detail"]


async def test_a_service_whose_tokens_were_damaged_is_not_ready(
    prefect_api_url: str, home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.json"
    TokenFile(path).create("ci", ["*"], TokenScope.READ)
    async with facade(prefect_api_url, Settings(home=home, tokens_file=path)) as client:
        path.write_text("{")
        status, parts = await readiness(client, 503)

    assert status == "not ready"
    assert not parts["tokens"]["ready"]


async def test_strangers_learn_neither_groups_nor_paths(
    prefect_api_url: str, home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.json"
    TokenFile(path).create("ci", ["*"], TokenScope.READ)
    async with facade(prefect_api_url, Settings(home=home, tokens_file=path)) as client:
        text = (await client.get("/readyz")).text

    assert not [word for word in (*GROUPS, str(home), str(tmp_path)) if word in text]


async def test_asking_again_at_once_asks_nobody(
    prefect_api_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.operation.health.FRESH_SECONDS", 3600)
    async with facade(prefect_api_url, Settings(home=home)) as client:
        first = (await client.get("/readyz")).json()
        home.chmod(0o700)
        path = home.rename(home.with_name("away"))
        try:
            assert (await client.get("/readyz")).json() == first
        finally:
            path.rename(home)
