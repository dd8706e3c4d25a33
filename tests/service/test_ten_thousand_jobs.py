"""With ten thousand jobs stored, a list is exact while others come and go."""

import asyncio
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType

from deployments.local import LocalStack
from flows.contract.spec import FLOW_NAME
from tests.database import database_of

GROUP = "ten-thousand"
STORED = 10_000
RUNNING = 330
CHURN = 200
AT_ONCE = 8
"""More submit no faster: a create takes the Prefect server 20 ms of CPU."""

_COPIES = """
INSERT INTO flow_run ({names}) SELECT {values} FROM generate_series(1, $1::int) AS number,
    (SELECT * FROM flow_run WHERE id = $2) AS one RETURNING id
"""


@pytest.fixture
async def prefect(stack: LocalStack) -> PrefectClient:
    return PrefectClient(f"{stack.settings.prefect_url}/api", auth_string=stack.auth_string)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_running_jobs_are_listed_exactly_while_jobs_come_and_go(
    stack: LocalStack, prefect: PrefectClient
) -> None:
    async with prefect, httpx.AsyncClient(base_url=stack.settings.api_url, timeout=60) as api:
        flow = await prefect.read_flow_by_name(FLOW_NAME)
        await prefect.create_deployment(flow.id, GROUP, enforce_parameter_schema=False)
        one = (await submit(api))["id"]
        await copy(stack, one, STORED, "COMPLETED")
        steady = await copy(stack, one, RUNNING, "RUNNING")
        ever_running: set[str] = set(steady)

        async def come_and_go() -> None:
            for _ in range(CHURN // AT_ONCE):
                job_id = (await submit(api))["id"]
                ever_running.add(job_id)
                for kind in (StateType.RUNNING, StateType.COMPLETED):
                    await prefect.set_flow_run_state(UUID(job_id), State(type=kind), force=True)

        churn = asyncio.gather(*(come_and_go() for _ in range(AT_ONCE)))
        walks = 0
        while not churn.done():
            found = await walk(api, status="running", limit=50)
            assert len(found) == len(set(found)), "a job came twice"
            assert steady <= set(found), "a job is missing"
            assert set(found) <= ever_running, "a job is listed that never ran"
            walks += 1
        await churn

        assert walks >= 3
        assert set(await walk(api, status="running", limit=200)) == steady
        assert len(await walk(api, status="completed", limit=200)) == STORED + CHURN


async def submit(api: httpx.AsyncClient) -> dict[str, str]:
    response = await api.post("/jobs", json={"engine": "mock", "group": GROUP})
    assert response.status_code == 201, response.text
    job: dict[str, str] = response.json()
    return job


async def walk(api: httpx.AsyncClient, **params: str | int) -> list[str]:
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get("/jobs", params={"group": GROUP, **params, **cursor})).raise_for_status().json()
        ids += [job["id"] for job in page["items"]]
        if page["next_cursor"] is None:
            return ids
        cursor = {"cursor": page["next_cursor"]}


async def copy(stack: LocalStack, job_id: str, count: int, state_type: str) -> set[str]:
    """Jobs as Prefect would store them, without the quarter of an hour that it would take."""
    async with database_of(stack) as connection:
        rows = await connection.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'flow_run'"
            " AND is_generated = 'NEVER'"
        )
        changed = {
            "id": "gen_random_uuid()",
            "idempotency_key": "gen_random_uuid()::text",
            "state_id": "NULL",
            "state_type": f"'{state_type}'",
            "state_name": f"'{state_type.capitalize()}'",
            "expected_start_time": "now() - (number / 7) * interval '1 millisecond'",
        }
        columns = [row["column_name"] for row in rows]
        # Only names of columns are put together here, as the database itself gives them.
        statement = _COPIES.format(
            names=", ".join(f'"{column}"' for column in columns),
            values=", ".join(changed.get(column, f'one."{column}"') for column in columns),
        )
        inserted = await connection.fetch(statement, count, job_id)
        await connection.execute("ANALYZE flow_run")
        return {str(row["id"]) for row in inserted}
