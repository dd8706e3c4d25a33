"""`/metrics` tells Prometheus of requests by route, and of jobs by group and status."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prometheus_client.parser import text_string_to_metric_families

from api.auth.callers import TokenScope
from api.auth.tokens import TokenFile
from api.settings import Settings
from flows.contract.spec import FLOW_NAME, RuleJobState
from tests.api.servers import free_port
from tests.api.support import RuleJobInState, Worker, facade, submit, the_problem

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.operation.metrics.FRESH_SECONDS", 0.0)


@pytest.fixture
async def client(prefect_api_url: str, home: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Of a facade that has answered nothing yet."""
    async with facade(prefect_api_url, Settings(home=home)) as client:
        yield client


@pytest.fixture
async def group(prefect: PrefectClient) -> AsyncIterator[str]:
    """A group of which there are no jobs yet."""
    name = f"group-{uuid4().hex}"
    flow_id = await prefect.create_flow_from_name(FLOW_NAME)
    deployment_id = await prefect.create_deployment(flow_id, name, enforce_parameter_schema=False)
    yield name
    await prefect.delete_deployment(deployment_id)


class Samples:
    """What was exposed, by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self._values.get((name, frozenset(labels.items())))


async def scrape(client: httpx.AsyncClient) -> Samples:
    response = await client.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    return Samples(response.text)


async def test_requests_are_counted_by_route_and_never_by_job(client: httpx.AsyncClient) -> None:
    ids = [uuid4() for _ in range(3)]
    for job_id in ids:
        assert (await client.get(f"/jobs/{job_id}")).status_code == 404
    await client.get(f"/not-there/{ids[0]}")
    await client.request("INVENTED", "/jobs")

    samples = await scrape(client)

    assert samples.value("jobs_http_requests_total", method="GET", route="/jobs/{job_id}", status="404") == 3
    assert samples.value("jobs_http_request_seconds_count", method="GET", route="/jobs/{job_id}") == 3
    assert samples.value("jobs_http_requests_total", method="GET", route="(none)", status="404") == 1
    assert not [job_id for job_id in ids if str(job_id) in samples.text]
    assert "INVENTED" not in samples.text


async def test_jobs_are_counted_by_group_and_status(
    client: httpx.AsyncClient, group: str, worker: Worker
) -> None:
    await scrape(client)
    await submit(client, group=group)
    running, *ending = [await submit(client, group=group) for _ in range(4)]
    await worker.bring_to(running, StateType.RUNNING)
    for job_id, state_type in zip(
        ending, (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED), strict=True
    ):
        await worker.bring_to(job_id, state_type)

    for _ in range(2):  # what has ended is counted once, however often somebody asks
        samples = await scrape(client)

        assert samples.value("jobs_open", group=group, status="pending") == 1
        assert samples.value("jobs_open", group=group, status="running") == 1
        assert samples.value("jobs_open", group=group, status="paused") == 0
        assert samples.value("jobs_finished_total", group=group, status="completed") == 1
        assert samples.value("jobs_finished_total", group=group, status="failed") == 2
        assert samples.value("jobs_finished_total", group=group, status="cancelled") == 0
        assert samples.value("jobs_queue_seconds_count", group=group) == 4
        assert samples.value("jobs_prefect_reachable") == 1
        assert samples.value("jobs_group_has_worker", group=group) == 0


async def test_a_job_that_never_ran_has_not_waited(client: httpx.AsyncClient, group: str) -> None:
    await scrape(client)
    job_id = await submit(client, group=group)
    assert (await client.post(f"/jobs/{job_id}/cancel")).status_code == 202

    samples = await scrape(client)

    assert samples.value("jobs_finished_total", group=group, status="cancelled") == 1
    assert samples.value("jobs_queue_seconds_count", group=group) is None


async def test_rule_jobs_of_open_jobs_are_counted_by_status(
    client: httpx.AsyncClient, group: str, worker: Worker
) -> None:
    before = await scrape(client)
    job_id = await submit(client, group=group)
    await worker.bring_to(job_id, StateType.RUNNING)
    rule_jobs = [
        RuleJobInState(1, StateType.PENDING),
        RuleJobInState(2, StateType.RUNNING),
        RuleJobInState(3, StateType.COMPLETED),
        RuleJobInState(4, StateType.COMPLETED, state_name=RuleJobState.SKIPPED),
    ]
    await worker.record(job_id, rule_jobs)

    after = await scrape(client)
    for status in ("pending", "running", "completed", "skipped"):
        counts = [samples.value("jobs_rule_jobs", status=status) or 0 for samples in (before, after)]
        assert counts[1] - counts[0] == 1, status

    await worker.bring_to(job_id, StateType.COMPLETED)
    ended = await scrape(client)
    assert ended.value("jobs_rule_jobs", status="running") == before.value("jobs_rule_jobs", status="running")


async def test_without_prefect_requests_are_told_all_the_same(home: Path) -> None:
    settings = Settings(home=home, read_timeout_seconds=0.3)
    async with facade(f"http://127.0.0.1:{free_port()}/api", settings) as client:
        assert (await client.get("/jobs")).status_code == 503

        samples = await scrape(client)

    assert samples.value("jobs_prefect_reachable") == 0
    assert samples.value("jobs_http_requests_total", method="GET", route="/jobs", status="503") == 1


async def test_refusals_at_the_gate_are_counted_too_and_metrics_are_not_for_everybody(
    prefect_api_url: str, home: Path, tmp_path: Path
) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    group, everything, operator = (
        {"Authorization": f"Bearer {file.create(name, groups, scope)}"}
        for name, groups, scope in (
            ("group", ["default"], TokenScope.SUBMIT),
            ("everything", ["*"], TokenScope.READ),
            ("operator", ["default"], TokenScope.ADMIN),
        )
    )
    settings = Settings(home=home, tokens_file=tmp_path / "tokens.json")
    async with facade(prefect_api_url, settings) as client:
        assert (await client.get("/metrics")).status_code == 401
        problem = the_problem(await client.get("/metrics", headers=group), 403)
        assert "'group'" in problem["detail"]
        assert (await client.get("/metrics", headers=operator)).status_code == 200
        samples = Samples((await client.get("/metrics", headers=everything)).text)

    assert samples.value("jobs_http_requests_total", method="GET", route="(none)", status="401") == 1
    assert samples.value("jobs_http_requests_total", method="GET", route="/metrics", status="403") == 1
