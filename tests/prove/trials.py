"""One fault, once: submits the load, inflicts the fault at a random moment, and lists what is wrong."""

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

import httpx
import psutil

from deployments.local import LocalStack
from tests.prove.faults import Fault, NoVictimError, inflict
from tests.prove.load import COUNT, Seen, request, specs, submit, watched
from tests.support import FINAL, Json

PATIENCE_SECONDS = 30.0
"""After the end of a fault; the time that jobs take anyway comes on top."""

_LATEST_MOMENT_SECONDS = 6.0
_LEFT_SECONDS = 15.0
_EXPECTED = "".join(f"{number}\nended\n" for number in range(1, COUNT + 1))


@dataclass
class Trial:
    """What happened."""

    fault: str
    seconds: float = 0.0
    """From the end of the fault to the end of all jobs."""
    failed: int = 0
    """Jobs that ended because of the fault, said so, and completed when they were resumed."""
    was_inflicted: bool = True
    wrong: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong, by invariant."""

    def note(self, invariant: str, *details: str) -> None:
        if details:
            self.wrong.setdefault(invariant, []).extend(details)


def run(
    fault: Fault, stack: LocalStack, count: int, own_seconds: float, latest: float = _LATEST_MOMENT_SECONDS
) -> Trial:
    """`own_seconds` is what the load takes without a fault. Call it where the stack was started."""
    trial = Trial(fault.name)
    tag = uuid4().hex[:8]
    url = stack.settings.api_url
    with (
        httpx.Client(base_url=url, timeout=30) as http,
        watched(url, tag) as seen,
        ThreadPoolExecutor(count) as clients,
    ):
        submitting = [clients.submit(submit, http, spec) for spec in specs(count, tag)]
        _until(stack, lambda: False, random.uniform(0.5, latest))
        try:
            inflict(fault, stack, lambda: _until(stack, lambda: False, 0.1))
        except NoVictimError:
            trial.was_inflicted = False
        ended = time.monotonic()
        _until(stack, lambda: all(each.done() for each in submitting), PATIENCE_SECONDS + own_seconds)
        job_ids = _submitted(submitting, trial)
        _until(stack, lambda: _are_final(seen, job_ids), PATIENCE_SECONDS + own_seconds)
        trial.seconds = time.monotonic() - ended
        _judge(trial, fault, stack, http, seen, job_ids)
    return trial


def _submitted(submitting: list["Future[str]"], trial: Trial) -> set[str]:
    found = set()
    for each in submitting:
        try:
            found.add(each.result(timeout=0))
        except Exception as error:  # noqa: BLE001 - whatever a client got is a finding
            trial.note("not submitted", repr(error))
    return found


def _are_final(seen: Seen, job_ids: set[str]) -> bool:
    return all(seen.statuses.get(job_id, [""])[-1] in FINAL for job_id in job_ids)


def _judge(
    trial: Trial, fault: Fault, stack: LocalStack, http: httpx.Client, seen: Seen, job_ids: set[str]
) -> None:
    trial.note("lost", *(seen.vanished | (job_ids - seen.statuses.keys())))
    trial.note("doubled", *(seen.doubled | (seen.statuses.keys() - job_ids)))
    trial.note("backwards", *(f"{job_id}: {statuses}" for job_id, statuses in seen.backwards().items()))
    jobs = [request(http, "GET", f"/jobs/{job_id}").json() for job_id in job_ids]
    trial.note("stuck", *(f"{job['id']}: {job['status']}" for job in jobs if job["status"] not in FINAL))
    for job in jobs:
        if job["status"] == "failed":
            trial.note("failed wrongly", *_complaints(job, fault))
    if not trial.wrong.get("stuck"):
        trial.note("left running", *_left(stack))
    resumed = _resume(stack, http, [job for job in jobs if job["status"] == "failed"], trial)
    for job in [*(job for job in jobs if job["status"] == "completed"), *resumed]:
        trial.note("outputs wrong", *_wrong_outputs(http, job))


def _complaints(job: Json, fault: Fault) -> list[str]:
    error = job["error"] or {}
    text = f"{job['id']}: {error.get('message')}"
    is_good = (
        error.get("kind") == "system" and error.get("resolution") and "http" not in str(error["message"])
    )
    return [] if fault.ends_jobs and is_good else [text]


def _resume(stack: LocalStack, http: httpx.Client, failed: list[Json], trial: Trial) -> list[Json]:
    """The jobs that continue those that have failed, when they have ended."""
    trial.failed = len(failed)
    failed = [job for job in failed if job["engine"] != "mock"]  # a mock has nothing to continue from
    resumed = [request(http, "POST", f"/jobs/{job['id']}/resume", json={}).json() for job in failed]

    def read() -> list[Json]:
        return [request(http, "GET", f"/jobs/{job['id']}").json() for job in resumed if "id" in job]

    _until(stack, lambda: all(job["status"] in FINAL for job in read()), PATIENCE_SECONDS * 2)
    jobs = read()
    trial.note("not resumed", *(str(job) for job in resumed if "id" not in job))
    trial.note(
        "not resumed",
        *(f"{job['id']}: {job['status']} {job['error']}" for job in jobs if job["status"] != "completed"),
    )
    return [job for job in jobs if job["status"] == "completed"]


def _wrong_outputs(http: httpx.Client, job: Json) -> list[str]:
    """Its rule jobs ran to their ends, and never twice at once."""
    progress = job["progress"]
    if progress["done"] != progress["total"] or not progress["total"]:
        return [f"{job['id']}: {progress}"]
    if job["engine"] == "mock":
        return []
    answer = request(http, "GET", f"/jobs/{job['id']}/outputs/sum.txt", follow_redirects=True)
    return [] if answer.text == _EXPECTED else [f"{job['id']}: {answer.status_code} {answer.text!r}"]


def _left(stack: LocalStack) -> list[str]:
    """Processes that still work in a job's directory after all jobs have ended."""
    jobs = str(stack.settings.home.resolve() / "jobs")

    def find() -> list[str]:
        return [
            f"{process.pid} {process.info['cmdline']}"
            for process in psutil.process_iter(["cwd", "cmdline"])
            if (process.info["cwd"] or "").startswith(jobs)
        ]

    _until(stack, lambda: not find(), _LEFT_SECONDS)
    return find()


def _until(stack: LocalStack, is_true: Callable[[], bool], seconds: float) -> None:
    """Supervise the stack until something is true, or for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not is_true():
        with suppress(psutil.Error):
            stack.supervise()
        time.sleep(0.05)
