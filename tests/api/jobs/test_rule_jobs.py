"""A job's rule jobs: what each is and how it went, in pages that neither repeat nor miss one."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.schemas.objects import StateType

from flows.contract.spec import RuleJobRecord, RuleJobState
from tests.api.support import Json, RuleJobInState, Worker, get, pages, submit, the_problem, walk

pytestmark = pytest.mark.anyio

CALL = RuleJobRecord(
    rule="call",
    wildcards={"sample": "B"},
    threads=4,
    resources={"mem_mb": 4000, "tmpdir": "/tmp"},
    reason="Missing output files: calls/B.vcf",
    shell="bcftools call mapped/B.bam > calls/B.vcf",
    inputs=("mapped/B.bam",),
    outputs=("calls/B.vcf",),
    error="exit code 1",
    cpu_seconds=12.5,
    peak_memory_bytes=100 << 20,
    external_id="184467",
    host="node07",
)


def ids(rule_jobs: Sequence[Json]) -> list[UUID]:
    return [UUID(rule_job["id"]) for rule_job in rule_jobs]


async def test_a_rule_job_tells_all_that_the_worker_knows_of_it(
    api: httpx.AsyncClient, worker: Worker
) -> None:
    job_id = await submit(api)
    failed = RuleJobInState(1, StateType.FAILED, attempts=2, record=CALL)
    await worker.record(job_id, [failed])

    (listed,) = await walk(api, f"/jobs/{job_id}/tasks")

    assert listed == await get(api, f"/jobs/{job_id}/tasks/{failed.task_id(job_id)}")
    assert listed == {
        "id": str(failed.task_id(job_id)),
        "name": "call[n=1]",
        "rule": "call",
        "wildcards": {"sample": "B"},
        "status": "failed",
        "attempts": 2,
        "started_at": "2025-10-09T08:53:20Z",
        "finished_at": "2025-10-09T08:53:20Z",
        "threads": 4,
        "resources": {"mem_mb": 4000, "tmpdir": "/tmp"},
        "reason": "Missing output files: calls/B.vcf",
        "shell": "bcftools call mapped/B.bam > calls/B.vcf",
        "inputs": ["mapped/B.bam"],
        "outputs": ["calls/B.vcf"],
        "error": "exit code 1",
        "cpu_seconds": 12.5,
        "peak_memory_bytes": 104857600,
        "external_id": "184467",
        "host": "node07",
        "waiting": None,
    }


async def test_what_never_ran_has_no_start(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(api)
    await worker.record(job_id, [RuleJobInState(1, StateType.CANCELLED, RuleJobState.NOT_RUN, attempts=0)])

    (rule_job,) = await walk(api, f"/jobs/{job_id}/tasks")

    assert (rule_job["status"], rule_job["attempts"], rule_job["started_at"]) == ("cancelled", 0, None)


async def test_a_task_run_without_our_record_still_has_its_rule(
    api: httpx.AsyncClient, worker: Worker, prefect_api_url: str
) -> None:
    job_id = await submit(api)
    body = {"name": "sort[sample=A]", "flow_run_id": str(job_id), "task_key": "x", "dynamic_key": "1"}
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{prefect_api_url}/task_runs/", json=body)
    assert response.is_success

    (rule_job,) = await walk(api, f"/jobs/{job_id}/tasks")

    assert (rule_job["rule"], rule_job["status"], rule_job["shell"]) == ("sort", "pending", None)


class TestFilters:
    @pytest.fixture(scope="class")
    async def job_id(self, api: httpx.AsyncClient, worker: Worker) -> UUID:
        """A job with rule jobs in every status, most of them skipped."""
        job_id = await submit(api)
        states: list[tuple[StateType, str, str]] = [
            (StateType.COMPLETED, RuleJobState.SKIPPED, "map"),
            (StateType.COMPLETED, RuleJobState.SKIPPED, "map"),
            (StateType.COMPLETED, RuleJobState.SKIPPED, "call"),
            (StateType.COMPLETED, "Completed", "map"),
            (StateType.COMPLETED, "Completed", "call"),
            (StateType.FAILED, "Failed", "call"),
            (StateType.CRASHED, "Crashed", "call"),
            (StateType.RUNNING, "Running", "map"),
            (StateType.PENDING, "Pending", "map"),
            (StateType.CANCELLED, RuleJobState.NOT_RUN, "plot"),
        ]
        rule_jobs = [
            RuleJobInState(number, state_type, state_name, rule)
            for number, (state_type, state_name, rule) in enumerate(states)
        ]
        await worker.record(job_id, rule_jobs)
        return job_id

    @pytest.mark.parametrize(
        ("parameters", "count"),
        [
            ({}, 10),
            ({"status": "skipped"}, 3),
            ({"status": "completed"}, 2),
            ({"status": "completed,skipped"}, 5),
            ({"status": "failed"}, 2),
            ({"status": ["running", "pending"]}, 2),
            ({"status": "cancelled"}, 1),
            ({"rule": "call"}, 4),
            ({"rule": "cal"}, 0),
            ({"rule": "call", "status": "completed"}, 1),
        ],
    )
    @pytest.mark.parametrize("limit", [1, 2, 200])
    async def test_are_exact_on_every_page(
        self, api: httpx.AsyncClient, job_id: UUID, parameters: dict[str, Any], count: int, limit: int
    ) -> None:
        walked = await walk(api, f"/jobs/{job_id}/tasks", limit=limit, **parameters)

        assert len(set(ids(walked))) == len(walked) == count
        wanted = str(parameters.get("status", "")) or "any"
        assert all(wanted == "any" or rule_job["status"] in wanted for rule_job in walked)


class TestPages:
    async def test_are_whole_when_a_thousand_rule_jobs_have_the_same_time(
        self, api: httpx.AsyncClient, worker: Worker
    ) -> None:
        job_id = await submit(api)
        await worker.record(job_id, [RuleJobInState(number) for number in range(1000)])

        sizes = [len(page) async for page in pages(api, f"/jobs/{job_id}/tasks", limit=200)]
        walked = ids(await walk(api, f"/jobs/{job_id}/tasks", limit=150))

        assert sum(sizes) == 1000
        assert len(walked) == len(set(walked)) == 1000
        assert walked == sorted(walked, reverse=True)

    async def test_do_not_repeat_or_miss_what_was_there_while_more_come_in(
        self, api: httpx.AsyncClient, worker: Worker
    ) -> None:
        job_id = await submit(api)
        there = [RuleJobInState(number) for number in range(20)]
        await worker.record(job_id, there)

        walked: list[Json] = []
        number = 100
        async for page in pages(api, f"/jobs/{job_id}/tasks", limit=3):
            walked += page
            if number < 105:  # five times, seven more come in between two pages
                more = [RuleJobInState(10 * number + index) for index in range(7)]
                await worker.record(job_id, [*more, *there])
                number += 1

        assert len(ids(walked)) == len(set(ids(walked)))
        assert {rule_job.task_id(job_id) for rule_job in there} <= set(ids(walked))

    async def test_do_not_miss_what_stays_while_others_leave_the_filter(
        self, api: httpx.AsyncClient, worker: Worker
    ) -> None:
        job_id = await submit(api)
        numbers = range(30)
        await worker.record(job_id, [RuleJobInState(number, StateType.RUNNING) for number in numbers])
        of = {RuleJobInState(number).task_id(job_id): number for number in numbers}

        walked: list[UUID] = []
        ended = 0
        async for page in pages(api, f"/jobs/{job_id}/tasks", limit=4, status="running"):
            walked += ids(page)
            await worker.record(
                job_id, [RuleJobInState(of[task_id], timestamp=1_760_000_100) for task_id in ids(page)]
            )
            ended += len(page)

        assert sorted(walked, reverse=True) == walked
        assert set(walked) == set(of)
        assert ended == len(numbers)

    async def test_belong_to_one_job(self, api: httpx.AsyncClient, worker: Worker) -> None:
        one, other = await submit(api), await submit(api)
        await worker.record(one, [RuleJobInState(number) for number in range(2)])
        cursor = (await get(api, f"/jobs/{one}/tasks", limit=1))["next_cursor"]

        the_problem(await api.get(f"/jobs/{other}/tasks", params={"cursor": cursor}), 400)


@pytest.mark.parametrize("task_id", [str(UUID(int=7)), "nonsense"])
@pytest.mark.parametrize("path", ["", "/logs"])
async def test_a_rule_job_that_is_not_there_is_not_found(
    api: httpx.AsyncClient, task_id: str, path: str
) -> None:
    the_problem(await api.get(f"/jobs/{await submit(api)}/tasks/{task_id}{path}"), 404)


async def test_a_rule_job_of_another_job_is_not_found(api: httpx.AsyncClient, worker: Worker) -> None:
    one, other = await submit(api), await submit(api)
    await worker.record(one, [RuleJobInState(1)])
    task_id = RuleJobInState(1).task_id(one)

    the_problem(await api.get(f"/jobs/{other}/tasks/{task_id}"), 404)
    the_problem(await api.get(f"/jobs/{other}/tasks/{task_id}/logs"), 404)
