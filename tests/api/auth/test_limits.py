"""No caller takes the service away from the others, and no group the queue."""

from pathlib import Path
from uuid import uuid4

import anyio
import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType

from api.auth.callers import TokenScope
from api.auth.rates import MOST_BUCKETS, Rates
from api.auth.tokens import TokenFile
from api.settings import Settings
from flows.contract.spec import FLOW_NAME
from tests.api.support import MOCK_JOB, Worker, facade, submit, the_problem

pytestmark = pytest.mark.anyio

HARDLY_EVER = 1e-3
"""Requests per second: no test lasts until another one is allowed."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class TestTheRate:
    def test_allows_a_burst_and_then_one_after_the_other(self) -> None:
        clock = Clock()
        rates = Rates(per_second=2, burst=3, clock=clock)

        assert [rates.seconds_to_wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
        clock.now = 0.5
        assert [rates.seconds_to_wait("a") for _ in range(2)] == [0, 0.5]

    def test_is_everybodys_own(self) -> None:
        rates = Rates(per_second=1, burst=1, clock=Clock())

        assert rates.seconds_to_wait("a") == 0
        assert rates.seconds_to_wait("b") == 0
        assert rates.seconds_to_wait("a") == 1

    def test_never_saves_up_more_than_the_burst(self) -> None:
        clock = Clock()
        rates = Rates(per_second=1, burst=2, clock=clock)
        rates.seconds_to_wait("a")
        clock.now = 3600

        assert [rates.seconds_to_wait("a") for _ in range(3)] == [0, 0, 1]

    def test_takes_bounded_memory(self) -> None:
        rates = Rates(per_second=1, burst=1, clock=Clock())
        for number in range(MOST_BUCKETS + 1):
            rates.seconds_to_wait(str(number))

        assert rates.seconds_to_wait("0") == 0, "the oldest is forgotten"
        assert rates.seconds_to_wait(str(MOST_BUCKETS)) == 1

    async def test_above_it_a_token_is_told_when_to_come_again(
        self, prefect_api_url: str, home: Path, tmp_path: Path
    ) -> None:
        file = TokenFile(tmp_path / "tokens.json")
        busy, calm = (
            {"Authorization": f"Bearer {file.create(name, ['*'], TokenScope.READ)}"}
            for name in ("busy", "calm")
        )
        settings = Settings(
            home=home, tokens_file=tmp_path / "tokens.json", rate_per_second=HARDLY_EVER, rate_burst=2
        )
        async with facade(prefect_api_url, settings) as client:
            answers = [await client.get("/jobs?limit=1", headers=busy) for _ in range(3)]

            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert the_problem(answers[-1], 429)["type"].endswith(":too-many-requests")
            assert int(answers[-1].headers["retry-after"]) > 0
            assert (await client.get("/jobs?limit=1", headers=calm)).status_code == 200
            assert (await client.get("/livez")).status_code == 200

    async def test_holds_for_guesses_at_tokens(
        self, prefect_api_url: str, home: Path, tmp_path: Path
    ) -> None:
        file = TokenFile(tmp_path / "tokens.json")
        known = {"Authorization": f"Bearer {file.create('ci', ['*'], TokenScope.READ)}"}
        settings = Settings(
            home=home, tokens_file=tmp_path / "tokens.json", rate_per_second=HARDLY_EVER, rate_burst=2
        )
        async with facade(prefect_api_url, settings) as client:
            guesses = [
                await client.get("/jobs", headers={"Authorization": f"Bearer {uuid4()}"}) for _ in range(3)
            ]

            assert [answer.status_code for answer in guesses] == [401, 401, 429]
            assert (await client.get("/jobs?limit=1", headers=known)).status_code == 200

    async def test_is_not_limited_unless_set(self, api: httpx.AsyncClient) -> None:
        answers = [await api.get("/jobs?limit=0") for _ in range(100)]

        assert {answer.status_code for answer in answers} == {422}


class TestOpenJobs:
    async def test_of_a_group_are_no_more_than_allowed(
        self, prefect: PrefectClient, prefect_api_url: str, home: Path, worker: Worker
    ) -> None:
        flow_id = await prefect.create_flow_from_name(FLOW_NAME)
        deployment_id = await prefect.create_deployment(flow_id, "narrow", enforce_parameter_schema=False)
        try:
            async with facade(prefect_api_url, Settings(home=home, max_open_jobs_per_group=2)) as client:
                waiting, running = [await submit(client, group="narrow") for _ in range(2)]
                await worker.bring_to(running, StateType.RUNNING)

                refused = await client.post("/jobs", json=MOCK_JOB | {"group": "narrow"})
                problem = the_problem(refused, 429)
                assert problem["type"].endswith(":too-many-open-jobs")
                assert problem["detail"] == "The group 'narrow' has 2 open jobs; its limit is 2."
                assert int(refused.headers["retry-after"]) > 0

                await worker.bring_to(running, StateType.COMPLETED)
                assert await submit(client, group="narrow")
                assert (await client.post(f"/jobs/{waiting}/cancel")).status_code == 202
                assert await submit(client, group="narrow")
        finally:
            await prefect.delete_deployment(deployment_id)

    async def test_do_not_keep_a_submission_from_being_repeated(
        self, prefect: PrefectClient, prefect_api_url: str, home: Path
    ) -> None:
        flow_id = await prefect.create_flow_from_name(FLOW_NAME)
        deployment_id = await prefect.create_deployment(flow_id, "single", enforce_parameter_schema=False)
        try:
            async with facade(prefect_api_url, Settings(home=home, max_open_jobs_per_group=1)) as client:
                body, headers = MOCK_JOB | {"group": "single"}, {"Idempotency-Key": "once"}
                first = await client.post("/jobs", json=body, headers=headers)
                again = await client.post("/jobs", json=body, headers=headers)

                assert (first.status_code, again.status_code) == (201, 201)
                assert again.json()["id"] == first.json()["id"]
                another = await client.post("/jobs", json=body, headers={"Idempotency-Key": "twice"})
                the_problem(another, 429)
        finally:
            await prefect.delete_deployment(deployment_id)

    async def test_at_once_exceed_the_limit_by_no_more_than_are_submitted_at_once(
        self, prefect: PrefectClient, prefect_api_url: str, home: Path
    ) -> None:
        flow_id = await prefect.create_flow_from_name(FLOW_NAME)
        deployment_id = await prefect.create_deployment(flow_id, "crowded", enforce_parameter_schema=False)
        statuses: list[int] = []
        try:
            async with facade(prefect_api_url, Settings(home=home, max_open_jobs_per_group=1)) as client:

                async def submit_one() -> None:
                    response = await client.post("/jobs", json=MOCK_JOB | {"group": "crowded"})
                    statuses.append(response.status_code)

                async with anyio.create_task_group() as clients:
                    for _ in range(24):
                        clients.start_soon(submit_one)
        finally:
            await prefect.delete_deployment(deployment_id)

        assert set(statuses) == {201, 429}
        assert statuses.count(201) <= 8
