"""Notifications of failed jobs by blocks of Prefect, in our own words."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from deployments.local import LocalStack
from tests.support import JobsClient, Json, wait_until


@contextmanager
def receiver() -> Iterator[tuple[str, list[Json]]]:
    """The address of a receiver of webhooks, and what it has received."""
    received: list[Json] = []

    class Receiving(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiving) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


def notify(stack: LocalStack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "deployments", "notify", *arguments],
        env={**os.environ, **stack.environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def test_a_failed_job_is_reported_with_its_error_and_what_to_do(
    jobs: JobsClient, stack: LocalStack, prefect_api: httpx.Client
) -> None:
    with receiver() as (address, received):
        kind = prefect_api.get("/block_types/slug/custom-webhook").raise_for_status().json()
        (schema,) = prefect_api.post(
            "/block_schemas/filter",
            json={"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}, "limit": 1},
        ).json()
        block = {
            "name": "lab",
            "block_type_id": kind["id"],
            "block_schema_id": schema["id"],
            "data": {
                "name": "lab",
                "url": address,
                "method": "POST",
                "json_data": {"subject": "{{subject}}", "body": "{{body}}"},
            },
        }
        prefect_api.post("/block_documents/", json=block).raise_for_status()
        for _ in range(2):
            done = notify(stack, "custom-webhook/lab", "--group", "default")
            assert done.returncode == 0, done.stdout + done.stderr

        failed = jobs.submit_workflow("failing", name="reported")
        jobs.wait(failed, "failed")
        wait_until(lambda: received, "the receiver has a message")
        assert notify(stack, "custom-webhook/lab", "--group", "default", "--remove").stdout == "Removed.\n"

    (message,) = received
    error = jobs.get(failed)["error"]
    assert message["subject"] == "reported: Failed"
    assert failed in message["body"]
    assert error["resolution"] in message["body"]
    assert error["message"].splitlines()[0][:60] in message["body"]


def test_a_block_that_is_not_there_is_named(stack: LocalStack) -> None:
    done = notify(stack, "slack-webhook/nowhere")
    assert done.returncode == 1
    assert "Prefect has no block 'slack-webhook/nowhere'" in done.stdout
