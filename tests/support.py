"""What the tests of the running service share: a client as a user would write it, and patience."""

import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from flows.contract.spec import Label
from flows.snakemake_process import namespaces

WORKFLOWS = Path(__file__).parent / "workflows"
FINAL = frozenset({"completed", "failed", "cancelled"})
NOBODY = 65534

_HAS_NETWORKS = shutil.which("slirp4netns") is not None and os.path.exists("/dev/net/tun")
needs_networks = pytest.mark.skipif(not _HAS_NETWORKS, reason="needs slirp4netns and /dev/net/tun")

Json = dict[str, Any]
Found = TypeVar("Found")


def wait_until(find: Callable[[], Found], description: str, seconds: float = 60.0) -> Found:
    """What `find` returns as soon as it is true; fails with `description` when it never is."""
    deadline = time.monotonic() + seconds
    while True:
        found = find()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain until {description}; last: {found!r}")
        time.sleep(0.1)


@dataclass(frozen=True)
class JobsClient:
    """The jobs API, as a program outside uses it."""

    http: httpx.Client

    def submit(self, **spec: Any) -> str:
        """The id of the new job."""
        response = self.http.post("/jobs", json=spec)
        assert response.status_code == 201, response.text
        job_id: str = response.json()["id"]
        return job_id

    def submit_workflow(self, workflow: str, **spec: Any) -> str:
        """Submit one of `tests/workflows`."""
        return self.submit(workflow={"path": str(WORKFLOWS / workflow)}, **{"cores": 2, **spec})

    def get(self, job_id: str) -> Json:
        response = self.http.get(f"/jobs/{job_id}")
        assert response.status_code == 200, response.text
        job: Json = response.json()
        return job

    def wait(self, job_id: str, *statuses: str, seconds: float = 90.0) -> Json:
        """The job, as soon as it has one of `statuses`; any final one by default."""
        wanted = frozenset(statuses) or FINAL

        def job_in_status() -> Json | None:
            job = self.get(job_id)
            if job["status"] in wanted:
                return job
            assert job["status"] not in FINAL, f"the job is {job['status']}: {job['error']}"
            return None

        job = wait_until(job_in_status, f"job {job_id} is {' or '.join(sorted(wanted))}", seconds)
        assert job is not None
        return job

    def wait_for_running_rule_job(self, job_id: str) -> None:
        wait_until(
            lambda: any(task["status"] == "running" for task in self.tasks(job_id)),
            f"a rule job of {job_id} runs",
        )

    def tasks(self, job_id: str, **filters: Any) -> list[Json]:
        return list(self.items(f"/jobs/{job_id}/tasks", **filters))

    def statuses(self, job_id: str) -> dict[str, str]:
        """Status by name of the rule job."""
        return {task["name"]: task["status"] for task in self.tasks(job_id)}

    def items(self, path: str, **params: Any) -> Iterator[Json]:
        """Every item of a list, page by page."""
        cursor: str | None = None
        while True:
            response = self.http.get(path, params={**params, **({"cursor": cursor} if cursor else {})})
            assert response.status_code == 200, response.text
            page = response.json()
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def log(self, job_id: str, task_id: str | None = None) -> str:
        path = f"/jobs/{job_id}/tasks/{task_id}/logs" if task_id else f"/jobs/{job_id}/logs"
        return "\n".join(entry["message"] for entry in self.items(path))


def is_ready(parts: list[Json]) -> bool:
    """Whether the service is ready, by the parts of `/readyz`; the machine may lack what rooms want."""
    return all(part["ready"] for part in parts if part["name"] != "isolation")


def processes_of(job_id: str) -> list[psutil.Process]:
    """Processes that work in the job's directory: Snakemake, its rule jobs, and their children."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        if job_id in (process.info["cwd"] or ""):
            found.append(process)
    return found


def flow_process_of(prefect_api: httpx.Client, job_id: str) -> psutil.Process:
    """The job's flow process, which names itself as `host:pid`."""

    def name() -> str | None:
        labels: dict[str, str] = prefect_api.get(f"/flow_runs/{job_id}").json()["labels"]
        return labels.get(Label.PROCESS)

    found = wait_until(name, "it names itself")
    assert found is not None
    return psutil.Process(int(found.partition(":")[2]))


def children_that_run(module: str) -> list[psutil.Process]:
    """Children of this process that run this module; a killed one may be a zombie at any moment."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if module in child.cmdline():
                found.append(child)
    return found


@contextmanager
def unprivileged(directory: Path) -> Iterator[None]:
    """As somebody to whom `directory` and all in it belong, and who may not do everything as root may."""
    if os.geteuid() != 0:
        yield
        return
    for path in (directory, *directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def become_nobody() -> None:
    """Let this process go on as an ordinary user, who can run the tests' Python wherever it is installed."""
    namespaces.unshare(namespaces.NEW_MOUNTS)
    namespaces.mount(None, "/", flags=namespaces.PRIVATE | namespaces.RECURSIVE)
    python = Path(sys.base_prefix).resolve()
    installed = os.open(python, os.O_PATH)
    for directory in reversed(python.parents):
        if not directory.stat().st_mode & stat.S_IXOTH:
            namespaces.mount("tmpfs", str(directory), "tmpfs", options="mode=755")
            python.mkdir(parents=True)
            namespaces.mount(f"/proc/self/fd/{installed}", str(python), flags=namespaces.BIND)
            break
    os.close(installed)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
