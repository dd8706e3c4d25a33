"""The load: real workflows and mocks, submitted as a careful client does it, and watched all the time."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any
from uuid import uuid4

import httpx

from tests.support import FINAL, WORKFLOWS, Json

COUNT = 3
"""Rule jobs of each real workflow that write a number."""

_ORDER = ("pending", "running", *sorted(FINAL))
_UNAVAILABLE = 503
_PATIENCE_SECONDS = 120.0
_MOCK = {"engine": "mock", "mock": {"delay_seconds": [0.5, 2], "success_rate": 1, "rules": 3}}
_REAL = {
    "workflow": {"path": str(WORKFLOWS / "numbers")},
    "cores": 3,
    "config": {"count": COUNT, "seconds": 2},
}


def specs(count: int, tag: str) -> list[Json]:
    """A third of them real workflows."""
    kinds: list[Json] = [_REAL if number % 3 == 0 else _MOCK for number in range(count)]
    return [{**kind, "name": f"{tag}-{number}", "tags": {"proof": tag}} for number, kind in enumerate(kinds)]


def request(http: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """Ask until the service answers: it is away for moments, and says 503 while Prefect is."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            response = http.request(method, path, **options)
            if response.status_code != _UNAVAILABLE or time.monotonic() > deadline:
                return response
        time.sleep(0.2)


def submit(http: httpx.Client, spec: Json) -> str:
    """Its id. A key makes sure that a request that is sent again makes no second job."""
    response = request(http, "POST", "/jobs", json=spec, headers={"Idempotency-Key": str(uuid4())})
    assert response.status_code in (200, 201), response.text
    job_id: str = response.json()["id"]
    return job_id


@dataclass
class Seen:
    """What a client has seen that lists and reads all the time."""

    statuses: dict[str, list[str]] = field(default_factory=dict)
    doubled: set[str] = field(default_factory=set)
    vanished: set[str] = field(default_factory=set)

    def add(self, job_id: str, status: str) -> None:
        known = self.statuses.setdefault(job_id, [])
        if not known or known[-1] != status:
            known.append(status)

    def add_list(self, items: list[Json]) -> None:
        counts = Counter(job["id"] for job in items)
        self.doubled |= {job_id for job_id, count in counts.items() if count > 1}
        self.vanished |= self.statuses.keys() - counts.keys()
        for job in items:
            self.add(job["id"], job["status"])

    def backwards(self) -> dict[str, list[str]]:
        """Jobs whose status went back, or changed after the end."""
        return {
            job_id: statuses
            for job_id, statuses in self.statuses.items()
            if statuses != sorted(set(statuses), key=_ORDER.index) or len(FINAL & set(statuses)) > 1
        }


@contextmanager
def watched(url: str, tag: str) -> Iterator[Seen]:
    """Watch the jobs with this tag."""
    seen = Seen()
    is_over = Event()

    def look() -> None:
        with httpx.Client(base_url=url, timeout=10) as http:
            while not is_over.wait(0.1):
                with contextlib.suppress(httpx.TransportError):
                    page = http.get("/jobs", params={"tag": f"proof:{tag}", "limit": 200})
                    if page.is_success:
                        seen.add_list(page.json()["items"])
                    for job_id in list(seen.statuses)[::5]:
                        one = http.get(f"/jobs/{job_id}")
                        if one.is_success:
                            seen.add(job_id, one.json()["status"])

    with ThreadPoolExecutor(1) as others:
        looking = others.submit(look)
        try:
            yield seen
        finally:
            is_over.set()
            looking.result()
