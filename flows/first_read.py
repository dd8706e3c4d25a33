"""The first thing that a flow process asks of Prefect, which may be away just then.

Nothing of the job has begun, so it waits. A client of Prefect's own tries again only what has
once answered.
"""

import time
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

PATIENCE_SECONDS = 300.0


def read_flow_run(client: SyncPrefectClient, flow_run_id: UUID) -> FlowRun:
    """The flow run, once Prefect answers. Raises httpx's errors when it does not, and `ObjectNotFound`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return client.read_flow_run(flow_run_id)
        except httpx.HTTPError as error:
            is_refusal = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
            if is_refusal or time.monotonic() > deadline:
                raise
            time.sleep(1)
