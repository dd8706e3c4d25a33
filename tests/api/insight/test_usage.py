"""What a job took as a drawing and in money; how it is measured is in `tests/service/test_usage.py`."""

from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from prefect.client.schemas.objects import StateType

from api.insight.cost import Prices
from api.settings import Machines, Settings
from tests.api.support import Worker, facade, get, submit

pytestmark = pytest.mark.anyio

LARGE = {"cpu": 2048, "memory": 4096}


@pytest.fixture
async def priced(
    prefect_api_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Prices of 3,600 USD an hour: one for each second."""
    monkeypatch.setenv("JOBS_PRICE_VCPU_HOUR", "3600")
    monkeypatch.setenv("JOBS_PRICE_GIB_HOUR", "0")
    async with facade(prefect_api_url, Settings(home=home, machines=Machines.FARGATE)) as client:
        yield client


async def test_a_job_on_fargate_has_the_cost_of_its_size(priced: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(priced, cores=2)
    await worker.bring_to(job_id, StateType.RUNNING)
    await worker.bring_to(job_id, StateType.COMPLETED)

    usage = await get(priced, f"/jobs/{job_id}/usage")

    assert usage["cost_usd"] == pytest.approx(2 * usage["seconds"], rel=1e-6)
    drawing = await priced.get(f"/jobs/{job_id}/usage.svg")
    assert drawing.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in drawing.headers["content-security-policy"]
    texts = "".join(ElementTree.fromstring(drawing.content).itertext())
    assert f"{usage['cost_usd']:.2f} USD" in texts


async def test_without_prices_a_job_has_no_cost(api: httpx.AsyncClient) -> None:
    assert (await get(api, f"/jobs/{await submit(api)}/usage"))["cost_usd"] is None


def test_memory_and_time_count() -> None:
    prices = Prices(vcpu_hour=0.04, gib_hour=0.004)

    assert prices.cost(LARGE, 1800) == pytest.approx(0.5 * (2 * 0.04 + 4 * 0.004))
    assert prices.cost(LARGE, None) is None
    assert prices.cost({}, 1800) is None
    assert Prices(vcpu_hour=0.04).cost(LARGE, 1800) is None
