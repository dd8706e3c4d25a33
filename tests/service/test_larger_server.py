"""A Prefect server of several processes: they share the work, and each may be killed at any time."""

import os
import signal
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from deployments.local import LocalStack
from deployments.processes import StackProcess
from tests.conftest import ENVIRONMENTS, local_settings
from tests.support import WORKFLOWS, JobsClient, Json, wait_until

AT_ONCE = 20
MOCK = {"delay_seconds": [0.2, 1], "success_rate": 1, "rules": 5}
REAL = {"workflow": {"path": str(WORKFLOWS / "numbers")}, "config": {"count": 4, "seconds": 1}, "cores": 2}
QUICK = {"engine": "mock", "mock": {"delay_seconds": [0, 0], "success_rate": 1, "rules": 1}, "group": "large"}


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack whose Prefect server has two processes for its API."""
    settings = local_settings(tmp_path_factory.mktemp("larger"), [WORKFLOWS])
    sizes = {"prefect_workers": 2, "concurrent_jobs": AT_ONCE + 1}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JOBS_ENVIRONMENTS_DIRECTORY", str(ENVIRONMENTS))
        with LocalStack(settings.model_copy(update=sizes)) as stack:
            yield stack


@pytest.fixture
def jobs(larger: LocalStack) -> Iterator[JobsClient]:
    with httpx.Client(base_url=larger.settings.api_url, timeout=60) as http:
        yield JobsClient(http)


@pytest.fixture
def prefect(larger: LocalStack) -> Iterator[httpx.Client]:
    user, _, password = larger.auth_string.partition(":")
    url = f"{larger.settings.prefect_url}/api"
    with httpx.Client(base_url=url, auth=(user, password), timeout=30) as http:
        yield http


@dataclass
class Client:
    """What a client that submits and reads all the time has got."""

    failed: list[str] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)

    def ask(self, http: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response | None:
        try:
            answer = http.request(method, path, **options)
        except httpx.HTTPError as error:
            self.failed.append(f"{method} {path}: {error!r}")
            return None
        if answer.is_error:
            self.failed.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            return None
        return answer


@contextmanager
def client(url: str, spec: Json = QUICK) -> Iterator[Client]:
    """A client, until the block ends."""
    seen, is_over = Client(), Event()

    def work() -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            while not is_over.wait(0.5):
                key = {"Idempotency-Key": str(uuid4())}
                if (answer := seen.ask(http, "POST", "/jobs", json=spec, headers=key)) is not None:
                    seen.submitted.append(answer.json()["id"])
                seen.ask(http, "GET", "/jobs", params={"limit": 50})

    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work)
        try:
            yield seen
        finally:
            is_over.set()
            working.result()


def run_through(larger: LocalStack, jobs: JobsClient, *victims: StackProcess) -> tuple[list[str], Client]:
    """Kill parts while jobs run, and wait until all of them have ended. The ids, and what clients got."""
    job_ids = [jobs.submit(engine="mock", mock=MOCK, cores=2) for _ in range(AT_ONCE - 1)]
    job_ids.append(jobs.submit(**REAL))
    wait_until(lambda: not list(jobs.items("/jobs", status="pending")), "all of them run", 30)
    with client(larger.settings.api_url) as seen:
        wait_until(lambda: seen.submitted, "a client has submitted a job")
        for victim in victims:
            os.kill(victim.pid, signal.SIGKILL)
        wait_until(lambda: supervised(larger, lambda: all_final(jobs, job_ids)), "all have ended", 60)
    wait_until(lambda: all_final(jobs, seen.submitted), "what was submitted meanwhile has ended")
    return [*job_ids, *seen.submitted], seen


def replace(larger: LocalStack, part: Callable[[], StackProcess | None]) -> StackProcess:
    """End a part with SIGTERM, as a deployment does. Returns its successor."""
    before = part()
    assert before is not None
    os.kill(before.pid, signal.SIGTERM)
    wait_until(lambda: supervised(larger, lambda: part() is not before), "it is replaced")
    after = part()
    assert after is not None
    return after


def server(larger: LocalStack, number: int) -> StackProcess:
    return larger.servers[number]


def listens(pid: int, port: int) -> bool:
    connections = psutil.Process(pid).net_connections("inet")
    return (psutil.CONN_LISTEN, port) in {(each.status, each.laddr[1]) for each in connections}


def supervised(larger: LocalStack, is_true: Any) -> bool:
    larger.supervise()
    return bool(is_true())


def all_final(jobs: JobsClient, job_ids: list[str]) -> bool:
    statuses: list[str] = [jobs.get(job_id)["status"] for job_id in job_ids]
    return not {"pending", "running"} & set(statuses)


def assert_exact(jobs: JobsClient, prefect: httpx.Client, job_ids: list[str]) -> None:
    """Every job has completed, and Prefect has recorded each of its rule jobs once, as completed."""
    for job_id in job_ids:
        job = jobs.get(job_id)
        assert job["status"] == "completed", job["error"]
        recorded = states(prefect, job_id)
        assert set(recorded) == {"COMPLETED"}
        assert len(recorded) == job["progress"]["done"] == job["progress"]["total"]


def states(prefect: httpx.Client, job_id: str) -> list[str]:
    body = {"flow_runs": {"id": {"any_": [job_id]}}}
    found: list[Json] = prefect.post("/task_runs/filter", json=body).json()
    return [task_run["state"]["type"] for task_run in found]


def test_requests_are_spread_over_the_processes(larger: LocalStack, prefect: httpx.Client) -> None:
    """Also those of connections that are kept."""
    before = [cpu_seconds(process.pid) for process in larger.servers]

    for _ in range(16):
        with httpx.Client(base_url=prefect.base_url, auth=prefect.auth) as client:
            for _ in range(20):
                client.post("/flow_runs/filter", json={"limit": 1}).raise_for_status()

    assert all(cpu_seconds(each.pid) > past for each, past in zip(larger.servers, before, strict=True))


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_only_its_user_reaches_valkey(larger: LocalStack) -> None:
    directory = larger.settings.home / "valkey"

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert larger.valkey is not None
    listening = psutil.Process(larger.valkey.pid).net_connections("inet")
    assert listening == []


def test_a_killed_process_of_the_api_and_killed_services_cost_no_client_a_request(
    larger: LocalStack, jobs: JobsClient, prefect: httpx.Client
) -> None:
    assert larger.services is not None
    job_ids, seen = run_through(larger, jobs, larger.server, larger.services)

    assert seen.failed == []
    assert_exact(jobs, prefect, job_ids)


def test_a_deployment_that_replaces_process_after_process_costs_no_client_a_request(
    larger: LocalStack, jobs: JobsClient, prefect: httpx.Client
) -> None:
    """Of the API, one by one, and then the services: as ECS does it, while many clients submit and read."""
    assert larger.services is not None
    job_ids = [jobs.submit(engine="mock", mock=MOCK, cores=2) for _ in range(AT_ONCE // 4)]
    several = {**QUICK, "group": "default"}
    with ExitStack() as clients:
        seen = [clients.enter_context(client(larger.settings.api_url, several)) for _ in range(3)]
        wait_until(lambda: all(each.submitted for each in seen), "all clients have submitted")
        for number in range(len(larger.servers)):
            new = replace(larger, partial(server, larger, number))
            wait_until(partial(listens, new.pid, larger.settings.prefect_port), "the new one takes requests")
        replace(larger, lambda: larger.services)
        before = sum(len(each.submitted) for each in seen)
        wait_until(lambda: sum(len(each.submitted) for each in seen) > before + 6, "the new ones take jobs")
    submitted = [job_id for each in seen for job_id in each.submitted]
    job_ids += submitted
    wait_until(lambda: all_final(jobs, job_ids), "all have ended", 120)

    assert [failure for each in seen for failure in each.failed] == []
    assert_exact(jobs, prefect, job_ids)


def test_a_valkey_that_comes_back_empty_costs_no_rule_job_its_record(
    larger: LocalStack, jobs: JobsClient, prefect: httpx.Client
) -> None:
    assert larger.valkey is not None
    job_ids, seen = run_through(larger, jobs, larger.valkey)

    assert all(": 503 " in failure for failure in seen.failed), "they are asked to try again"
    assert_exact(jobs, prefect, job_ids)


def test_readiness_says_that_valkey_is_away(larger: LocalStack, jobs: JobsClient) -> None:
    assert larger.valkey is not None
    os.kill(larger.valkey.pid, signal.SIGKILL)

    wait_until(lambda: "can't reach Valkey" in jobs.http.get("/readyz").text, "/readyz names it")
    assert jobs.http.get("/readyz").status_code == 503
    wait_until(
        lambda: supervised(larger, lambda: jobs.http.get("/readyz").json()["status"] == "ready"), "it is back"
    )
