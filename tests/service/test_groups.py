"""A group takes as many jobs at once as it is declared to; the others wait, in order."""

import subprocess
import sys
from itertools import pairwise

import httpx

from deployments.local import PROJECT, LocalStack
from tests.support import JobsClient, wait_until

MOCK = {"engine": "mock", "mock": {"delay_seconds": [1, 1], "success_rate": 1, "rules": 1}}


def test_a_full_group_runs_its_jobs_one_after_the_other_in_order(jobs: JobsClient) -> None:
    job_ids = [jobs.submit(group="large", **MOCK) for _ in range(4)]
    elsewhere = jobs.submit(**MOCK)

    full = "The group 'large' is full: it runs 1 job at once, in order."
    wait_until(lambda: jobs.get(job_ids[-1])["waiting"] == full, "the last one says why it waits")
    jobs.wait(elsewhere)
    ended = [jobs.wait(job_id) for job_id in job_ids]

    for before, after in pairwise(ended):
        assert before["finished_at"] <= after["started_at"]


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
