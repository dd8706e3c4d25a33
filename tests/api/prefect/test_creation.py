"""Flow runs that are wanted at once are made together, and each has its own answer, in a real Prefect."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from api.prefect.creation import MOST_TOGETHER, Creation
from api.prefect.rows import FLOW_RUN_ROWS, FlowRunRow
from flows.contract.spec import FLOW_NAME

pytestmark = pytest.mark.anyio

BULK = "/create_flow_run/bulk"


class Requests:
    """What was sent to Prefect."""

    def __init__(self, client: PrefectClient) -> None:
        self.paths: list[str] = []
        client._client.event_hooks["request"].append(self._note)

    async def _note(self, request: httpx.Request) -> None:
        self.paths.append(request.url.path)

    def count(self, end: str) -> int:
        return sum(path.endswith(end) for path in self.paths)


@pytest.fixture
async def client(prefect_api_url: str) -> AsyncIterator[PrefectClient]:
    async with PrefectClient(prefect_api_url) as client:
        yield client


@pytest.fixture
async def deployment_id(client: PrefectClient) -> AsyncIterator[UUID]:
    """Of a flow whose parameter `cores` is a number."""
    flow_id = await client.create_flow_from_name(FLOW_NAME)
    schema = {"type": "object", "properties": {"cores": {"type": "integer"}}}
    deployment_id = await client.create_deployment(
        flow_id, f"made-{uuid4().hex}", parameter_openapi_schema=schema, enforce_parameter_schema=True
    )
    yield deployment_id
    await client.delete_deployment(deployment_id)


@pytest.fixture
def creation(client: PrefectClient) -> Creation:
    async def read(ids: Sequence[UUID]) -> Sequence[FlowRunRow]:
        filters = FlowRunFilter(id=FlowRunFilterId(any_=list(ids))).model_dump(mode="json")
        response = await client.request("POST", "/flow_runs/filter", json={"flow_runs": filters})
        return FLOW_RUN_ROWS.validate_json(response.content)

    return Creation(client, read, 30)


def body(cores: object = 1, **more: object) -> dict[str, object]:
    return {"parameters": {"cores": cores}, "idempotency_key": str(uuid4()), "name": None, **more}


async def test_one_alone_goes_alone(creation: Creation, client: PrefectClient, deployment_id: UUID) -> None:
    requests = Requests(client)

    row = await creation.create(deployment_id, body(3, name="alone"))

    assert (row.name, row.parameters["cores"]) == ("alone", 3)
    assert (requests.count("/create_flow_run"), requests.count(BULK)) == (1, 0)


async def test_those_that_come_meanwhile_go_together(
    creation: Creation, client: PrefectClient, deployment_id: UUID
) -> None:
    requests = Requests(client)
    wanted = [body(number, name=f"job-{number}") for number in range(MOST_TOGETHER * 2)]

    rows = await asyncio.gather(*(creation.create(deployment_id, each) for each in wanted))

    assert [(row.name, row.parameters["cores"]) for row in rows] == [
        (f"job-{number}", number) for number in range(len(wanted))
    ]
    assert len({row.id for row in rows}) == len(wanted)
    assert (requests.count("/create_flow_run"), requests.count(BULK)) == (0, 2)


async def test_one_that_prefect_refuses_has_its_error_and_costs_no_other_its_flow_run(
    creation: Creation, deployment_id: UUID
) -> None:
    wanted = [body(), body("many"), body()]

    first, refused, last = await asyncio.gather(
        *(creation.create(deployment_id, each) for each in wanted), return_exceptions=True
    )

    assert isinstance(first, FlowRunRow)
    assert isinstance(last, FlowRunRow)
    assert isinstance(refused, httpx.HTTPStatusError)
    assert refused.response.status_code == 409
    assert "is not valid under any of the given schemas" in refused.response.text


async def test_one_that_the_database_refuses_costs_no_other_its_flow_run(
    creation: Creation, client: PrefectClient, deployment_id: UUID
) -> None:
    """Prefect rolls all of them back, and says of those before it that they were created."""
    wanted = [body(), body(name="\0"), body()]

    answers = await asyncio.gather(
        *(creation.create(deployment_id, each) for each in wanted), return_exceptions=True
    )

    assert [isinstance(answer, FlowRunRow) for answer in answers] == [True, False, True]
    for answer in (answers[0], answers[2]):
        assert isinstance(answer, FlowRunRow)
        assert (await client.read_flow_run(answer.id)).id == answer.id


async def test_an_answer_of_no_sense_about_many_leaves_nobody_waiting(
    client: PrefectClient, deployment_id: UUID
) -> None:
    async def read(_: Sequence[UUID]) -> Sequence[FlowRunRow]:
        return FLOW_RUN_ROWS.validate_json("<html>")

    creation = Creation(client, read, 30)
    wanted = [body(number) for number in range(3)]

    async with asyncio.timeout(20):
        rows = await asyncio.gather(*(creation.create(deployment_id, each) for each in wanted))

    assert [row.parameters["cores"] for row in rows] == [0, 1, 2]


async def test_the_same_key_makes_one_flow_run(creation: Creation, deployment_id: UUID) -> None:
    key = str(uuid4())

    rows = await asyncio.gather(
        *(creation.create(deployment_id, body(idempotency_key=key)) for _ in range(5))
    )

    assert len({row.id for row in rows}) == 1


async def test_a_deployment_that_is_gone_is_an_error_for_each(creation: Creation) -> None:
    gone = uuid4()

    answers = await asyncio.gather(*(creation.create(gone, body()) for _ in range(3)), return_exceptions=True)

    assert [
        answer.response.status_code for answer in answers if isinstance(answer, httpx.HTTPStatusError)
    ] == [404] * 3


async def test_whoever_gives_up_holds_nobody_up(creation: Creation, deployment_id: UUID) -> None:
    others = [asyncio.create_task(creation.create(deployment_id, body())) for _ in range(4)]
    await asyncio.sleep(0)

    others[1].cancel()

    rows = await asyncio.gather(*others, return_exceptions=True)
    assert [isinstance(row, FlowRunRow) for row in rows] == [True, False, True, True]
    assert isinstance(await creation.create(deployment_id, body()), FlowRunRow)
