"""How fast requests are answered: by this service, and by Prefect directly."""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prefect.client.orchestration import PrefectClient

from deployments.local import LocalStack
from flows.contract.environments import EnvironmentSettings
from flows.contract.spec import FLOW_NAME
from flows.environments.environment import Environment
from flows.environments.making import Environments
from tests.benchmarks.load import Load, get_for, post_times
from tests.benchmarks.processes import flow_zygote, prefect_url_with_password, zygotes_of
from tests.benchmarks.rows import Report, Row, median
from tests.benchmarks.sapporo import sapporo, submit
from tests.database import database_of
from tests.support import JobsClient

IDLE_GROUP = "benchmark-idle"
DEFAULTS_GROUP = "benchmark-defaults"
MOCK = {"engine": "mock", "mock": {"delay_seconds": [120, 120], "success_rate": 1, "rules": 4}}
_SECONDS = 5.0
_TURNS = 16
_TURN_SECONDS = 0.6


@dataclass(frozen=True)
class Times:
    """Medians of ours and of what it is compared with, and of their ratio turn by turn."""

    ours_ms: float
    theirs_ms: float
    ratio: float
    cpu: str


def _cpu(rounds: Sequence[tuple[Load, Load]]) -> str:
    """Medians of both sides."""
    ours, theirs = (median([load.cpu_ms for load in side]) for side in zip(*rounds, strict=True))
    return f"{ours:.1f} : {theirs:.1f} ms"


def submits(report: Report, stack: LocalStack) -> None:
    """Creates into a deployment without a worker, so that nothing else is measured."""
    asyncio.run(_idle_deployment(stack, IDLE_GROUP))
    default_id = asyncio.run(_idle_deployment(stack, DEFAULTS_GROUP, at_defaults=True))
    ours_url = f"{stack.settings.api_url}/jobs"
    theirs_url = f"{prefect_url_with_password(stack)}/api/deployments/{default_id}/create_flow_run"
    our_body = json.dumps({**MOCK, "group": IDLE_GROUP}).encode()
    their_body = json.dumps({"parameters": MOCK, "state": {"type": "SCHEDULED"}}).encode()
    rounds = [
        (post_times(ours_url, our_body, 16, _SECONDS), post_times(theirs_url, their_body, 16, _SECONDS))
        for _ in range(3)
    ]
    alone = [
        (post_times(ours_url, our_body, 1, _SECONDS), post_times(theirs_url, their_body, 1, _SECONDS))
        for _ in range(3)
    ]
    assert all(load.failures == 0 for pair in rounds + alone for load in pair)
    report.add(
        Row(
            "POST /jobs, 16 clients, throughput",
            median([ours.per_second / theirs.per_second for ours, theirs in rounds]),
            1.3,
            higher_is_better=True,
            ours=f"{median([ours.per_second for ours, _ in rounds]):.0f}/s",
            theirs=f"{median([theirs.per_second for _, theirs in rounds]):.0f}/s",
            cpu=_cpu(rounds),
        ),
        Row(
            "POST /jobs, one client, added at the median",
            median([ours.p50_ms - theirs.p50_ms for ours, theirs in alone]),
            4,
            unit="ms",
            ours=f"{median([ours.p50_ms for ours, _ in alone]):.0f} ms",
            theirs=f"{median([theirs.p50_ms for _, theirs in alone]):.0f} ms",
            cpu=_cpu(alone),
        ),
    )


def artifacts(report: Report, stack: LocalStack) -> None:
    """A summary and a table of twenty outputs, as each job sends them at its end; and the create of a job."""
    default_id = asyncio.run(_idle_deployment(stack, DEFAULTS_GROUP, at_defaults=True))
    api = f"{prefect_url_with_password(stack)}/api"
    table = [{"file": f"results/{number}.tsv", "size": "1.5 kB", "address": "a" * 90} for number in range(20)]
    summary = {"key": "summary", "type": "markdown", "data": "a" * 3_000}
    bodies = [
        json.dumps(body).encode() for body in (summary, {"key": "outputs", "type": "table", "data": table})
    ]
    create = json.dumps({"parameters": MOCK, "state": {"type": "SCHEDULED"}}).encode()
    rounds = [
        (
            [post_times(f"{api}/artifacts/", body, 1, _TURN_SECONDS) for body in bodies],
            post_times(f"{api}/deployments/{default_id}/create_flow_run", create, 1, _TURN_SECONDS),
        )
        for _ in range(_TURNS)
    ]
    assert all(load.failures == 0 for ours, theirs in rounds for load in (*ours, theirs))
    ours_ms = [sum(load.p50_ms for load in ours) for ours, _ in rounds]
    ours_cpu = median([sum(load.cpu_ms for load in ours) for ours, _ in rounds])
    their_cpu = median([theirs.cpu_ms for _, theirs in rounds])
    report.add(
        Row(
            "artifacts of a job, beside its create",
            median([ours / theirs.p50_ms for ours, (_, theirs) in zip(ours_ms, rounds, strict=True)]),
            1,
            ours=f"{median(ours_ms):.0f} ms",
            theirs=f"{median([theirs.p50_ms for _, theirs in rounds]):.0f} ms",
            cpu=f"{ours_cpu:.1f} : {their_cpu:.1f} ms",
        )
    )


def submits_beside_sapporo(report: Report, stack: LocalStack) -> None:
    """Sixteen clients submit to either in turn; both only take the submission, no workflow runs."""
    asyncio.run(_idle_deployment(stack, IDLE_GROUP))
    body = json.dumps({**MOCK, "group": IDLE_GROUP}).encode()
    with tempfile.TemporaryDirectory() as directory, sapporo(Path(directory)) as url:
        if url is None:
            report.console.print("sapporo can't be installed here; it is not compared with.")
            return
        rounds = [
            (post_times(f"{stack.settings.api_url}/jobs", body, 16, _SECONDS), submit(url, 16, _SECONDS))
            for _ in range(3)
        ]
    assert all(load.failures == 0 for pair in rounds for load in pair)
    report.add(
        Row(
            "POST /jobs, 16 clients, throughput against sapporo",
            median([ours.per_second / theirs.per_second for ours, theirs in rounds]),
            1,
            higher_is_better=True,
            ours=f"{median([ours.per_second for ours, _ in rounds]):.0f}/s",
            theirs=f"{median([theirs.per_second for _, theirs in rounds]):.0f}/s",
            cpu=_cpu(rounds),
        )
    )


def reads(report: Report, stack: LocalStack, jobs: JobsClient) -> None:
    """Sixteen clients poll twenty live jobs."""
    job_ids = [jobs.submit(**MOCK) for _ in range(20)]
    for job_id in job_ids:
        jobs.wait(job_id, "running")
    report.add(_memory_of_jobs(stack, len(job_ids)))
    ours_urls = [f"{stack.settings.api_url}/jobs/{job_id}" for job_id in job_ids]
    their_urls = [f"{prefect_url_with_password(stack)}/api/flow_runs/{job_id}" for job_id in job_ids]
    rounds = [(get_for(ours_urls, 16, _SECONDS), get_for(their_urls, 16, _SECONDS)) for _ in range(3)]
    for job_id in job_ids:
        jobs.http.post(f"/jobs/{job_id}/cancel")
    for job_id in job_ids:
        jobs.wait(job_id, "cancelled")
    report.add(
        Row(
            "GET /jobs/{id}, 16 clients, throughput",
            median([ours.per_second / theirs.per_second for ours, theirs in rounds]),
            5,
            higher_is_better=True,
            ours=f"{median([ours.per_second for ours, _ in rounds]):.0f}/s",
            theirs=f"{median([theirs.per_second for _, theirs in rounds]):.0f}/s",
            cpu=_cpu(rounds),
        ),
        Row(
            "GET /jobs/{id}, 16 clients, p50",
            median([ours.p50_ms for ours, _ in rounds]),
            10,
            unit="ms",
            theirs=f"{median([theirs.p50_ms for _, theirs in rounds]):.0f} ms",
        ),
    )


def lists(report: Report, stack: LocalStack) -> None:
    """A page of 50, filtered by status, with ten and a hundred thousand jobs stored."""
    deployment_id = asyncio.run(_idle_deployment(stack, IDLE_GROUP))
    asyncio.run(_store_jobs(stack, deployment_id, 10_000))
    few = _list_times(stack, deployment_id)
    asyncio.run(_store_jobs(stack, deployment_id, 100_000))
    many = _list_times(stack, deployment_id)
    report.add(
        Row(
            "list of 50 of 10,000",
            few.ratio,
            1.15,
            ours=f"{few.ours_ms:.0f} ms",
            theirs=f"{few.theirs_ms:.0f} ms",
            cpu=few.cpu,
        ),
        Row(
            "list of 50, 100,000 against 10,000 stored",
            many.ours_ms / few.ours_ms,
            2,
            ours=f"{many.ours_ms:.0f} ms",
            theirs=f"{few.ours_ms:.0f} ms",
        ),
    )


def memory(report: Report, stack: LocalStack) -> None:
    facade = psutil.Process(stack.api.pid).memory_full_info().uss
    default, *_ = zygotes_of(stack, str(_default_environment(stack).python))
    processes = (psutil.Process(stack.worker.pid), flow_zygote(stack), default)
    warm = sum(process.memory_full_info().pss for process in processes)
    report.add(
        Row("memory of the facade, after all this", facade / 1e6, 150, unit="MB"),
        Row("memory of worker, zygote and one warm environment, idle", warm / 1e6, 250, unit="MB"),
    )


def _default_environment(stack: LocalStack) -> Environment:
    environments = Environments(EnvironmentSettings(), stack.settings.home)
    return environments.get(environments.wanted(None))


def _memory_of_jobs(stack: LocalStack, count: int) -> Row:
    zygote = flow_zygote(stack)
    unshared = [process.memory_full_info().uss for process in zygote.children(recursive=True)]
    return Row("memory of a running job, unshared", sum(unshared) / count / 1e6, 60, unit="MB")


async def _idle_deployment(stack: LocalStack, name: str, *, at_defaults: bool = False) -> str:
    """A group that no worker serves, registered as `prefect.yaml` does it, or at Prefect's defaults."""
    async with PrefectClient(f"{stack.settings.prefect_url}/api", auth_string=stack.auth_string) as client:
        flow = await client.read_flow_by_name(FLOW_NAME)
        template = await client.read_deployment_by_name(f"{FLOW_NAME}/default")
        deployment_id = await client.create_deployment(
            flow.id,
            name,
            parameter_openapi_schema=template.parameter_openapi_schema,
            enforce_parameter_schema=at_defaults,
        )
    return str(deployment_id)


async def _store_jobs(stack: LocalStack, deployment_id: str, total: int) -> None:
    """Fill up with finished jobs, copies of a submitted one: a hundred thousand posts take an hour."""
    async with database_of(stack) as connection:
        columns = [
            record["column_name"]
            for record in await connection.fetch(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'flow_run'"
                " AND is_generated = 'NEVER'"
            )
        ]
        stored = await connection.fetchval(
            "SELECT count(*) FROM flow_run WHERE deployment_id = $1", deployment_id
        )
        changed = {
            "id": "gen_random_uuid()",
            "idempotency_key": "gen_random_uuid()::text",
            "state_id": "NULL",
            "state_type": "'COMPLETED'",
            "state_name": "'Completed'",
            "expected_start_time": "now() - number * interval '1 second'",
            "start_time": "now() - number * interval '1 second'",
            "end_time": "now() - (number - 1) * interval '1 second'",
        }
        values = ", ".join(changed.get(column, f'one."{column}"') for column in columns)
        names = ", ".join(f'"{column}"' for column in columns)
        # Only names of columns are put together here, as the database itself gives them.
        await connection.execute(
            f"INSERT INTO flow_run ({names}) SELECT {values} FROM generate_series(1, $1::int) AS number,"
            " (SELECT * FROM flow_run WHERE deployment_id = $2 LIMIT 1) AS one",
            max(0, total - stored),
            deployment_id,
        )
        await connection.execute("ANALYZE flow_run")


def _list_times(stack: LocalStack, deployment_id: str) -> Times:
    """Of this service, and of the same filter on Prefect, in short turns: the machine's pace changes."""
    body = {
        "flow_runs": {
            "deployment_id": {"any_": [deployment_id]},
            "state": {"type": {"any_": ["COMPLETED"]}},
        },
        "sort": "EXPECTED_START_TIME_DESC",
        "limit": 50,
    }
    ours_url = f"{stack.settings.api_url}/jobs?status=completed&group={IDLE_GROUP}&limit=50"
    their_url = f"{prefect_url_with_password(stack)}/api/flow_runs/filter"
    rounds = [
        (
            get_for([ours_url], 1, _TURN_SECONDS),
            post_times(their_url, json.dumps(body).encode(), 1, _TURN_SECONDS),
        )
        for _ in range(_TURNS)
    ]
    assert len(httpx.get(ours_url).json()["items"]) == 50
    ours_ms, their_ms = (median([load.p50_ms for load in side]) for side in zip(*rounds, strict=True))
    ratio = median([ours.p50_ms / theirs.p50_ms for ours, theirs in rounds])
    return Times(ours_ms, their_ms, ratio, _cpu(rounds))
