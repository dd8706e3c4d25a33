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


def test_endless_jobs_of_one_group_leave_a_place_for_another(jobs: JobsClient) -> None:
    endless = MOCK | {"mock": {"delay_seconds": [600, 600], "success_rate": 1, "rules": 1}}
    job_ids = [jobs.submit(**endless) for _ in range(JOBS_AT_ONCE + 2)]
    try:
        full = f"The group 'default' is full: it runs at most {JOBS_AT_ONCE} jobs at once, in order."
        wait_until(lambda: jobs.get(job_ids[-1])["waiting"] == full, "the last one says why it waits")
        jobs.wait(jobs.submit(group="large", **MOCK), "completed", seconds=30)
    finally:
        for job_id in reversed(job_ids):
            jobs.http.post(f"/jobs/{job_id}/cancel")
        for job_id in job_ids:
            jobs.wait(job_id, "cancelled")


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

        assert queues.items() >= {"large": (2, JOBS_AT_ONCE - 1), "held": (3, 0)}.items()
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
