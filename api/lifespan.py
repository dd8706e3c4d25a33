"""Connects to Prefect, makes the services, and runs what works in the background until the end."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio.to_thread
import httpx
from fastapi import FastAPI
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from standardwebhooks import Webhook as Signer

from api.auth.callers import ANYONE
from api.auth.startup import check_startup
from api.auth.tokens import TokenSource
from api.events.following import Following
from api.events.open_streams import OpenStreams
from api.gateway.batch_access import BatchAccess
from api.gateway.routes import Gateway
from api.gateway.storage_access import StorageAccess
from api.insight.cost import Prices
from api.insight.shared_drawings import Drawings
from api.jobs.bundles import Bundles
from api.jobs.disposal import Disposal
from api.jobs.outputs import Outputs
from api.jobs.removal import Removal
from api.jobs.submissions import Submissions
from api.jobs.visible_jobs import VisibleJobs
from api.operation.health import Health
from api.operation.metrics import Metrics
from api.operation.retention import Retention
from api.prefect.automations import Automations
from api.prefect.changes import Changes
from api.prefect.deployments import Deployments
from api.prefect.overview import Overview
from api.prefect.reads import JobReads
from api.prefect.schedules import Schedules
from api.services import Services
from api.settings import Settings
from api.webhooks.deliveries import Deliveries
from api.workflows.new_files import NewFiles
from api.workflows.plans import Plans
from api.workflows.registration import Registration
from api.workflows.registry import Registry
from api.workflows.runs import RegisteredRuns
from api.workflows.scheduling import Scheduling
from api.workflows.triggering import Triggering
from flows.contract.storage import open_storage

_log = logging.getLogger(__name__)

# For one attempt at one request to Prefect. Waiting for a free connection is not limited: Prefect's
# client would pause for seconds after such a timeout before it queues again.
_ATTEMPT_TIMEOUT = httpx.Timeout(10, connect=3, pool=None)
# On a local network, compression takes Prefect's server longer than sending the data.
_UNPACKED = {"Accept-Encoding": "identity"}


_PROBE_SECONDS = 3.0
"""The longest that a readiness probe waits for Prefect."""


@asynccontextmanager
async def lifespan(
    app: FastAPI, settings: Settings, tokens: TokenSource | None, at_end: ExitStack
) -> AsyncIterator[None]:
    """Needs `PREFECT_API_URL`; `at_end` is closed last. Raises `StartupRefused`."""
    check_startup(settings.api_host, tokens)
    if tokens is None:
        _log.warning(
            "Tokens are off: everybody on this machine may submit, read, cancel and remove every job. "
            "Create tokens with `python -m api tokens create`."
        )
    if not PREFECT_API_URL.value():
        # Without it, Prefect's client would start a temporary server on SQLite.
        raise RuntimeError(
            "PREFECT_API_URL is not set. Set it to the API of the Prefect server, "
            "for example http://127.0.0.1:4200/api."
        )
    prefect_ui_url = str(settings.public_prefect_ui_url or PREFECT_UI_URL.value()).rstrip("/")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(anyio.to_thread.run_sync, at_end.close)
        client = await stack.enter_async_context(
            get_client(httpx_settings={"timeout": _ATTEMPT_TIMEOUT, "headers": _UNPACKED})
        )
        overview = Overview(client, settings.read_timeout_seconds)
        # Requests of many jobs must not take the connections of the API's callers.
        for_jobs = await stack.enter_async_context(
            get_client(httpx_settings={"timeout": _ATTEMPT_TIMEOUT, "headers": _UNPACKED})
        )
        gateway = Gateway(
            for_jobs,
            settings.gateway_secret,
            settings,
            settings.submit_timeout_seconds,
            _storage_access(settings),
            _batch_access(settings),
        )
        services = app.state.services = _services(client, overview, settings, tokens, prefect_ui_url, gateway)
        await stack.enter_async_context(_delivering(settings, overview, prefect_ui_url, services.metrics))
        plans = Plans(
            overview,
            Schedules(client, settings.read_timeout_seconds),
            services.reads,
            services.submissions,
            services.removal,
        )
        await stack.enter_async_context(_running(plans.run()))
        if settings.storage_url is None:
            await stack.enter_async_context(_running(services.new_files.run()))
        if settings.retention_days is not None:
            retention = Retention(
                overview,
                services.removal,
                VisibleJobs(ANYONE, services.reads),
                timedelta(days=settings.retention_days),
                timedelta(seconds=settings.retention_look_seconds),
            )
            await stack.enter_async_context(_running(retention.run()))
        yield


def _services(
    client: PrefectClient,
    overview: Overview,
    settings: Settings,
    tokens: TokenSource | None,
    prefect_ui_url: str,
    gateway: Gateway,
) -> Services:
    timeout_seconds = settings.read_timeout_seconds
    storage = open_storage(settings)
    disposal = Disposal(storage, settings.home)
    reads = JobReads.of(client, timeout_seconds, prefect_ui_url)
    registry = Registry(storage)
    submissions = Submissions(reads.flow_runs, disposal, settings, storage, RegisteredRuns(registry))
    removal = Removal(reads.flow_runs, disposal)
    registration = Registration(
        registry,
        Deployments(client, timeout_seconds),
        reads.flow_runs.groups,
        submissions,
        removal,
        disposal,
        storage,
    )
    automations = Automations(client, timeout_seconds)
    new_files = NewFiles(
        client,
        automations,
        reads.flow_runs.groups,
        settings.home,
        settings.data_roots_of,
        timeout_seconds,
    )
    probe = Overview(client, min(timeout_seconds, _PROBE_SECONDS))
    return Services(
        settings=settings,
        storage=storage,
        bundles=Bundles(storage, settings, settings.home / "bundles"),
        outputs=Outputs(storage),
        reads=reads,
        submissions=submissions,
        removal=removal,
        registry=registry,
        registration=registration,
        scheduling=Scheduling(Schedules(client, timeout_seconds), submissions),
        triggering=Triggering(automations, submissions, new_files),
        new_files=new_files,
        prices=Prices(),
        prefect_ui_url=prefect_ui_url,
        drawings=Drawings(reads.rule_jobs),
        following=Following(
            Changes(client, timeout_seconds), VisibleJobs(ANYONE, reads).get, reads.flow_runs.many
        ),
        open_streams=OpenStreams(settings.max_streams_per_token),
        health=Health(probe, settings.home, tokens),
        metrics=Metrics(overview),
        gateway=gateway,
    )


def _storage_access(settings: Settings) -> StorageAccess | None:
    if settings.gateway_storage_role_arn is None or settings.storage_url is None:
        return None
    return StorageAccess(settings.gateway_storage_role_arn, settings.storage_url)


def _batch_access(settings: Settings) -> BatchAccess | None:
    if not settings.gateway_batch_role_arns:
        return None
    return BatchAccess(
        settings.gateway_batch_role_arns, settings.executors_by_group, settings.gateway_batch_seconds
    )


@asynccontextmanager
async def _delivering(
    settings: Settings, overview: Overview, prefect_ui_url: str, metrics: Metrics
) -> AsyncIterator[None]:
    """Delivers webhooks in the background, if there is a secret to sign them."""
    if settings.webhook_secret is None:
        yield
        return
    deliveries = Deliveries(
        overview,
        Signer(settings.webhook_secret.get_secret_value()),
        retry_seconds=settings.webhook_retry_seconds,
        poll_seconds=settings.webhook_poll_seconds,
        private_hosts=settings.webhook_allowed_private_hosts,
        prefect_ui_url=prefect_ui_url,
        count=metrics.count_webhook,
    )
    async with _running(deliveries.run()):
        yield


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs in the background, and is cancelled at the end."""
    running = asyncio.create_task(work)
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
