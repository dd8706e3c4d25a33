"""The facade, before a real Prefect server on a real PostgreSQL.

Set `TEST_PREFECT_API_URL` to use a server that runs already: no test minds what else is there.
"""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from api.settings import Settings
from flows.contract.spec import FLOW_NAME
from tests.api.servers import facade_process, prefect_server
from tests.api.support import GROUPS, Worker, facade


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def prefect_api_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if running := os.environ.get("TEST_PREFECT_API_URL"):
        yield running
        return
    with prefect_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url


@pytest.fixture(scope="session")
async def prefect(anyio_backend: str, prefect_api_url: str) -> AsyncIterator[PrefectClient]:
    async with PrefectClient(prefect_api_url) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
async def groups(prefect: PrefectClient) -> tuple[str, ...]:
    """The flow, deployed as every one of `GROUPS`."""
    flow_id = await prefect.create_flow_from_name(FLOW_NAME)
    for group in GROUPS:
        await prefect.create_deployment(flow_id, group, enforce_parameter_schema=False)
    return GROUPS


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where jobs have their directories."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def workflow_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the facade allows workflows to be."""
    return tmp_path_factory.mktemp("workflows")


@pytest.fixture(scope="session")
async def api(
    anyio_backend: str, prefect_api_url: str, home: Path, workflow_root: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a facade in this process."""
    settings = Settings(home=home, workflow_roots=(workflow_root,), max_body_bytes=1 << 20)
    async with facade(prefect_api_url, settings) as client:
        yield client


@pytest.fixture(scope="session")
def service_url(prefect_api_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A facade in a process of its own, on a real socket."""
    with facade_process(prefect_api_url, tmp_path_factory.mktemp("service")) as url:
        yield url


@pytest.fixture(scope="session")
def worker(prefect: PrefectClient) -> Worker:
    return Worker(prefect)
