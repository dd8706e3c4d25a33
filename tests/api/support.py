"""Puts jobs into any state, as the worker does it, and reads listings to their end."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import TERMINAL_STATES, State, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings

from api.app import create_app
from api.settings import Settings
from flows.contract.documentation import with_reference
from flows.contract.spec import Label, RuleJobRecord
from flows.record.task_runs import (
    StateChange,
    isoformat,
    log_entry,
    state_change_event,
    task_inputs,
    task_run_id_of,
)

GROUPS = ("default", "large")
PROBLEM = "application/problem+json"
MOCK_JOB = {"engine": "mock"}

# From ga4gh/workflow-execution-service-schemas (Apache-2.0), its one remote reference inlined.
WES_DOCUMENT = Path(__file__).parent / "wes" / "workflow_execution_service-1.1.0.bundled.yaml"

Json = dict[str, Any]


@asynccontextmanager
async def facade(
    prefect_api_url: str, settings: Settings, base_url: str = "http://127.0.0.1"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a facade in this process."""
    app = create_app(settings)
    with temporary_settings({PREFECT_API_URL: prefect_api_url}):
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=base_url, timeout=60) as client:
                yield client


async def submit(api: httpx.AsyncClient, **spec: Any) -> UUID:
    """Submits a mock job; its id."""
    response = await api.post("/jobs", json=MOCK_JOB | spec)
    assert response.status_code == 201, response.text
    return UUID(response.json()["id"])


async def get(api: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    response = await api.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


async def pages(api: httpx.AsyncClient, path: str, **parameters: Any) -> AsyncIterator[list[Json]]:
    """The items of every page of a listing."""
    cursor: str | None = None
    while True:
        page = await get(api, path, **parameters, **({"cursor": cursor} if cursor else {}))
        yield page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


async def walk(api: httpx.AsyncClient, path: str, **parameters: Any) -> list[Json]:
    """Every item of a listing, page by page."""
    return [item async for items in pages(api, path, **parameters) for item in items]


def resolution_of(problem: Json) -> str:
    """Without where the documentation says more."""
    resolution: str = problem["resolution"]
    return resolution.partition(" See docs/")[0]


def the_problem(response: httpx.Response, status: int) -> Json:
    """The problem that was answered, of that status and fit for a client to act on."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    problem: Json = response.json()
    assert problem["status"] == status
    assert all(problem[member] for member in ("type", "title", "detail", "instance", "resolution"))
    if problem["type"] != "about:blank":
        slug = problem["type"].rpartition(":")[2]
        assert problem["resolution"] == with_reference(resolution_of(problem), slug)
    return problem


@dataclass(frozen=True, slots=True)
class RuleJobInState:
    """A rule job, and the state that the worker tells Prefect of."""

    number: int
    state_type: StateType = StateType.COMPLETED
    state_name: str = ""
    rule: str = "map"
    attempts: int = 1
    timestamp: float = 1_760_000_000.0
    record: RuleJobRecord | None = None
    name: str | None = None
    depends_on: tuple[int, ...] = ()

    def task_id(self, job_id: UUID) -> UUID:
        return task_run_id_of(job_id, self.number)

    def event(self, job_id: UUID) -> Json:
        record = self.record or RuleJobRecord(rule=self.rule)
        moment = isoformat(self.timestamp)
        columns: Json = {
            "name": self.name or f"{record.rule}[n={self.number}]",
            "task_key": f"rule.{record.rule}",
            "dynamic_key": str(self.number),
            "run_count": self.attempts,
            "tags": [record.rule],
            "task_inputs": task_inputs(task_run_id_of(job_id, number) for number in self.depends_on),
            # All of a plan at the same instant, as the worker sends it.
            "expected_start_time": moment,
            "start_time": moment,
            "end_time": moment if self.state_type in TERMINAL_STATES else None,
            "labels": {Label.RULE_JOB.value: record.model_dump_json(exclude_defaults=True)},
        }
        name = self.state_name or self.state_type.value.capitalize()
        state = StateChange(self.state_type, name, self.timestamp)
        return state_change_event(job_id, self.task_id(job_id), columns, state)


async def wait_until(
    condition: Callable[[], Awaitable[bool]], description: str, timeout_seconds: float = 30
) -> None:
    """Asks again and again until it is so."""
    deadline = time.monotonic() + timeout_seconds
    while not await condition():
        assert time.monotonic() < deadline, f"never came true: {description}"
        await anyio.sleep(0.1)


class Worker:
    """Does to a job in Prefect what the real worker does, as far as the facade can see."""

    def __init__(self, prefect: PrefectClient) -> None:
        self._prefect = prefect

    async def bring_to(self, job_id: UUID, state_type: StateType, message: str = "") -> None:
        """Puts the job into a state, by way of running: Prefect cancels what never ran at once."""
        for kind in (StateType.RUNNING, state_type):
            await self._prefect.set_flow_run_state(job_id, State(type=kind, message=message), force=True)

    async def label(self, job_id: UUID, labels: Mapping[Label, str | int]) -> None:
        await self._prefect.update_flow_run_labels(
            job_id, {str(label): value for label, value in labels.items()}
        )

    async def record(self, job_id: UUID, rule_jobs: Sequence[RuleJobInState]) -> None:
        """Records rule jobs, and waits until Prefect shows the last one's state."""
        events = [rule_job.event(job_id) for rule_job in rule_jobs]
        for start in range(0, len(events), 200):
            await self._prefect.request("POST", "/events", json=events[start : start + 200])
        expected = Counter(rule_job.state_type for rule_job in rule_jobs)
        for state_type, count in expected.items():
            # Other suites may keep the server busy.
            await wait_until(partial(self._has, job_id, state_type, count), f"{count} are {state_type}", 90)

    async def log(
        self, job_id: UUID, lines: Iterable[tuple[float, str]], task_id: UUID | None = None
    ) -> None:
        entries = [log_entry(job_id, task_id, 20, message, timestamp) for timestamp, message in lines]
        await self._prefect.create_logs(entries)

    async def _has(self, job_id: UUID, state_type: StateType, count: int) -> bool:
        task_runs = {
            "flow_run_id": {"any_": [str(job_id)]},
            "state": {"type": {"any_": [state_type.value]}},
        }
        response = await self._prefect.request("POST", "/task_runs/count", json={"task_runs": task_runs})
        return bool(response.json() >= count)
