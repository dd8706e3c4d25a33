"""The first request of a flow process to Prefect, which may be unreachable at that moment.

The job has not started yet, so it can wait. Prefect's own client only retries with a server that it has
already reached.
"""

import time
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

TIMEOUT_SECONDS = 300.0


def read_flow_run(client: SyncPrefectClient, flow_run_id: UUID) -> FlowRun:
    """The flow run, as soon as Prefect responds. Raises httpx's errors, and `ObjectNotFound`."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            return client.read_flow_run(flow_run_id)
        except httpx.HTTPError as error:
            is_refusal = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
            if is_refusal or time.monotonic() > deadline:
                raise
            time.sleep(1)
