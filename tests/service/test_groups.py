"""A group takes as many jobs at once as it is declared to; the others wait, in order."""

import subprocess
import sys
from itertools import pairwise

import httpx

from deployments.local import PROJECT, LocalStack
from tests.conftest import JOBS_AT_ONCE
from tests.support import JobsClient, wait_until

MOCK = {"engine": "mock", "mock": {"delay_seconds": [1, 1], "success_rate": 1, "rules": 1}}


def test_a_full_group_runs_its_jobs_one_after_the_other_in_order(jobs: JobsClient) -> None:
    job_ids = [jobs.submit(group="large", **MOCK) for _ in range(4)]
    elsewhere = jobs.submit(**MOCK)

    full = "The group 'large' is full: it runs at most 1 job at once, in order."
    wait_until(lambda: jobs.get(job_ids[-1])["waiting"] == full, "the last one says why it waits")
    jobs.wait(elsewhere)
    ended = [jobs.wait(job_id) for job_id in job_ids]

    for before, after in pairwise(ended):
        assert before["finished_at"] <= after["started_at"]


def test_the_group_with_the_lower_number_goes_first(
    stack: LocalStack, jobs: JobsClient, prefect_api: httpx.Client
) -> None:
    """Of all that waits, however long: here for a worker that may take as many as one group has."""
    prefect_api.patch("/work_pools/snakemake", json={"is_paused": True}).raise_for_status()
    try:
        late = jobs.submit(group="large", **MOCK)
        early = [jobs.submit(**MOCK) for _ in range(JOBS_AT_ONCE)]
    finally:
        prefect_api.patch("/work_pools/snakemake", json={"is_paused": False}).raise_for_status()

    started = [jobs.wait(job_id)["started_at"] for job_id in early]

    assert max(started) <= jobs.wait(late)["started_at"]


def test_registering_again_changes_nothing(stack: LocalStack, prefect_api: httpx.Client) -> None:
    def registered() -> list[tuple[object, ...]]:
        queues = prefect_api.post("/work_pools/snakemake/queues/filter", json={}).json()
        deployments = prefect_api.post("/deployments/filter", json={}).json()
        return sorted(
            [(queue["id"], queue["name"], queue["priority"], queue["concurrency_limit"]) for queue in queues]
            + [(one["id"], one["name"], one["work_queue_id"], one["description"]) for one in deployments],
            key=str,
        )

    before = registered()

    command = [sys.executable, "-m", "deployments", "register"]
    subprocess.run(command, env=stack.environment, cwd=PROJECT, check=True)

    assert registered() == before
    assert {name for _, name, *_ in before} >= {"default", "large"}


def test_settings_replace_what_the_file_says_of_a_group_and_add_others(
    stack: LocalStack, jobs: JobsClient, prefect_api: httpx.Client
) -> None:
    def register(**variables: str) -> dict[str, tuple[int, int | None]]:
        command = [sys.executable, "-m", "deployments", "register"]
        subprocess.run(command, env=stack.environment | variables, cwd=PROJECT, check=True)
        queues = prefect_api.post("/work_pools/snakemake/queues/filter", json={}).json()
        return {queue["name"]: (queue["priority"], queue["concurrency_limit"]) for queue in queues}

    try:
        queues = register(
            JOBS_GROUPS='{"large": {"priority": 2}, "held": {"priority": 3, "concurrency_limit": 0}}'
        )

        assert queues.items() >= {"large": (2, None), "held": (3, 0)}.items()
        job_id = jobs.submit(group="held", **MOCK)
        waiting = wait_until(lambda: jobs.get(job_id)["waiting"], "the job says why it waits")
        assert waiting.startswith("The group 'held' ")
        jobs.http.post(f"/jobs/{job_id}/cancel")
        jobs.wait(job_id, "cancelled")
    finally:
        held = prefect_api.get("/deployments/name/snakemake-job/held").json()["id"]
        prefect_api.delete(f"/deployments/{held}")
        prefect_api.delete("/work_pools/snakemake/queues/held")
        assert register()["large"] == (2, 1)
