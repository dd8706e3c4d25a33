"""A cancelled job stays cancelled, at whatever moment of its start the word comes."""

import signal
import time

import httpx
import psutil

from deployments.local import LocalStack
from tests.support import JobsClient, processes_of, wait_until


def test_a_job_cancelled_while_its_flow_process_is_being_forked_never_runs(
    jobs: JobsClient, prefect_api: httpx.Client, stack: LocalStack
) -> None:
    zygote = psutil.Process(stack.worker.pid).children()[0]
    zygote.send_signal(signal.SIGSTOP)
    try:
        job_id = jobs.submit_workflow("sleeper", cores=4)
        wait_until(
            lambda: prefect_api.get(f"/flow_runs/{job_id}").json()["state"]["type"] == "PENDING",
            "the worker has taken the job",
        )
        jobs.http.post(f"/jobs/{job_id}/cancel")
        time.sleep(1)  # the worker has heard of it
    finally:
        zygote.send_signal(signal.SIGCONT)

    jobs.wait(job_id, "cancelled", seconds=10)
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        assert jobs.get(job_id)["status"] == "cancelled"
        assert not processes_of(job_id)
        time.sleep(0.2)
    assert jobs.tasks(job_id) == []
