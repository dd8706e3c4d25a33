"""The client for all requests of a flow process to Prefect, without some that its engine makes for each job.

A request takes about 10 ms of the server's CPU time, and a short job waits for each.
"""

import ssl
from http import HTTPStatus
from typing import Any
from urllib.request import getproxies
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import ServerDefaultResultStorage
from prefect.context import SyncClientContext
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL

from flows.worker.patience import PatientTransport


def client_context() -> SyncClientContext:
    """The context in which Prefect's engine, and all else in this process, finds the client.

    Without TLS it needs no certificates, which take 40 ms to load. The context is constructed without
    settings, because Prefect's `get_client` only reuses a client whose settings are the requested ones.
    """
    settings: dict[str, Any] = {}
    if not PREFECT_API_URL.value().startswith("https:"):
        none_trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        settings["verify"] = none_trusted
        if not getproxies():  # httpx uses none with a transport of ours
            settings["transport"] = PatientTransport(httpx.HTTPTransport(verify=none_trusted))
    client = FlowClient(
        PREFECT_API_URL.value(),
        auth_string=PREFECT_API_AUTH_STRING.value(),
        api_key=PREFECT_API_KEY.value(),
        httpx_settings=settings,
    )
    return SyncClientContext.model_construct(client=client)


class FlowClient(SyncPrefectClient):
    """Prefect's client, for the one job of a process."""

    def update_flow_run(self, flow_run_id: UUID, *_: Any, **__: Any) -> httpx.Response:
        """Do nothing: the engine sends its version, and that the server retries nothing, as by default."""
        return httpx.Response(HTTPStatus.NO_CONTENT)

    def read_server_default_result_storage(self) -> ServerDefaultResultStorage:
        """None: a job has no results that Prefect stores."""
        return ServerDefaultResultStorage()
