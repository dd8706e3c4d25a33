"""The facade as an ASGI application: it owns the client to Prefect and makes every error a problem."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from inspect import isclass
from typing import Any, get_type_hints

import anyio.to_thread
import httpx
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from pydantic import BaseModel
from standardwebhooks import Webhook as Signer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.auth.callers import declare_tokens
from api.auth.middleware import Gate
from api.auth.rates import Rates
from api.auth.startup import check_opening, token_source
from api.events.following import Following
from api.events.streams import OpenStreams, events_router
from api.insight.routes import insight_router
from api.jobs.bundles import Bundles
from api.jobs.jobs import Jobs
from api.jobs.outputs import Outputs
from api.jobs.routes import jobs_router
from api.operation.health import Health
from api.operation.metrics import Metrics
from api.operation.observation import Observation
from api.operation.retention import Retention
from api.operation.routes import service_router
from api.operation.telemetry import is_wanted, trace
from api.prefect.changes import Changes
from api.prefect.overview import Overview
from api.settings import Settings
from api.web.problems import MEDIA_TYPE, Problem, ProblemError, StorageUnavailable, problem_response
from api.web.validation import problem_of
from api.webhooks.deliveries import Deliveries
from api.wes.routes import wes_router
from flows.contract.storage import StorageError, open_storage

_log = logging.getLogger(__name__)

# For one attempt at one call to Prefect. Waiting for a free connection has no limit of its own:
# Prefect's client would answer that with a pause of seconds before it queues again.
_ATTEMPT_TIMEOUT = httpx.Timeout(10, connect=3, pool=None)
# Packing what goes over one machine or network takes Prefect's server longer than sending it.
_UNPACKED = {"Accept-Encoding": "identity"}


_PROBE_SECONDS = 3.0
"""Who asks whether the service is ready does not wait for long."""


# Events come first: /jobs/{job_id} would take the "events" of /jobs/events for an id.
_ROUTERS = (events_router, jobs_router, insight_router, service_router, wes_router)


class Facade(FastAPI):
    """An application whose OpenAPI document declares tokens, and problems by their media type."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            for path in super().openapi()["paths"].values():
                for operation in path.values():
                    _declare_problems(operation["responses"])
            declare_tokens(super().openapi())
        return super().openapi()


def create_app(settings: Settings) -> FastAPI:
    """The facade, not yet connected; its lifespan needs `PREFECT_API_URL`."""
    app = Facade(
        title="prefect-snakemake",
        summary="Run Snakemake workflows as Prefect flow runs.",
        lifespan=_lifespan,
        exception_handlers={
            ProblemError: _on_problem,
            RequestValidationError: _on_invalid_request,
            HTTPException: _on_http_exception,
            StorageError: _on_storage_error,
            ClientDisconnect: _on_disconnect,
            Exception: _on_defect,
        },
    )
    app.state.settings = settings
    app.state.storage = open_storage(settings)
    app.state.outputs = Outputs(app.state.storage)
    app.state.bundles = Bundles(app.state.storage, settings, settings.home / "bundles")
    app.state.open_streams = OpenStreams(settings.max_streams_per_token)
    app.state.tokens = token_source(settings.tokens, settings.tokens_file)
    rates = Rates(settings.rate_per_second, settings.rate_burst) if settings.rate_per_second else None
    app.add_middleware(Gate, tokens=app.state.tokens, rates=rates)
    app.add_middleware(Observation)
    app.state.end_traces = trace(app) if is_wanted(settings.otel) else None
    for each in _ROUTERS:
        app.include_router(each)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    check_opening(settings.api_host, app.state.tokens)
    if app.state.tokens is None:
        _log.warning(
            "Tokens are off: everybody on this machine may submit, see and cancel every job. "
            "`python -m api tokens create` makes tokens."
        )
    if not PREFECT_API_URL.value():
        # Prefect's client would start a server of its own, on SQLite.
        raise RuntimeError(
            "PREFECT_API_URL is not set. Set it to the API of the Prefect server, "
            "for example http://127.0.0.1:4200/api."
        )
    ui_url = str(settings.public_prefect_ui_url or PREFECT_UI_URL.value()).rstrip("/")
    async with AsyncExitStack() as stack:
        if app.state.end_traces is not None:
            stack.push_async_callback(anyio.to_thread.run_sync, app.state.end_traces)
        client = await stack.enter_async_context(
            get_client(httpx_settings={"timeout": _ATTEMPT_TIMEOUT, "headers": _UNPACKED})
        )
        jobs = app.state.jobs = Jobs(client, settings, app.state.storage, ui_url)
        changes = Changes(client, settings.read_patience_seconds)
        app.state.following = Following(changes, jobs.get, jobs.many)
        overview = Overview(client, settings.read_patience_seconds)
        probe = Overview(client, min(settings.read_patience_seconds, _PROBE_SECONDS))
        app.state.health = Health(probe, settings.home, app.state.tokens)
        metrics = app.state.metrics = Metrics(overview)
        await stack.enter_async_context(_delivering(settings, overview, ui_url, metrics))
        if settings.retention_days is not None:
            age, look_every = (
                timedelta(days=settings.retention_days),
                timedelta(seconds=settings.retention_look_seconds),
            )
            await stack.enter_async_context(_running(Retention(overview, jobs, age, look_every).run()))
        yield


@asynccontextmanager
async def _delivering(
    settings: Settings, overview: Overview, prefect_ui_url: str, metrics: Metrics
) -> AsyncIterator[None]:
    """Delivers webhooks meanwhile, if they can be signed."""
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
    """Meanwhile."""
    running = asyncio.create_task(work)
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _on_problem(request: Request, error: ProblemError) -> JSONResponse:
    return problem_response(error.problem(request.url.path), error.headers)


async def _on_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
    return await _on_problem(request, problem_of(error.errors(), _request_model(request)))


async def _on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    problem = Problem(
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=f"{request.method} {request.url.path}: {error.detail}.",
        instance=request.url.path,
        resolution="/docs lists the paths and methods that there are.",
    )
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(request))  # Starlette names those of one route only
    return problem_response(problem, headers)


def _methods_at(request: Request) -> list[str]:
    """What may be sent to the path of this request."""
    routes = [route for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    found = (route.methods or set() for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted(set[str]().union(*found))


async def _on_storage_error(request: Request, error: StorageError) -> JSONResponse:
    """Where things are kept is the operator's business: the log says it, the answer does not."""
    _log.error("%s %s: %s", request.method, request.url.path, error)
    problem = StorageUnavailable(
        "The storage of bundles and outputs can't do its work.",
        "Try again later; if it goes on, tell the operator: the service's log has the details.",
    )
    return await _on_problem(request, problem)


async def _on_disconnect(request: Request, error: ClientDisconnect) -> Response:
    """Nobody is there to read an answer."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def _on_defect(request: Request, error: Exception) -> JSONResponse:
    """What nobody foresaw; the traceback goes to the server's log when this has been answered."""
    problem = Problem(
        title="Internal error",
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        detail=f"{request.method} {request.url.path} met a defect of this service ({type(error).__name__}).",
        instance=request.url.path,
        resolution="Tell the operator: the service's log has the details.",
    )
    return problem_response(problem, {})


def _request_model(request: Request) -> type[BaseModel] | None:
    """What the body or the query of this request should have been."""
    hints = get_type_hints(request.scope["endpoint"])
    hints.pop("return", None)
    return next((kind for kind in hints.values() if isclass(kind) and issubclass(kind, BaseModel)), None)


def _declare_problems(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        if status >= "400":
            (content,) = response["content"].values()  # under the media type of a success
            if content["schema"].get("$ref", "").endswith("/Problem"):
                response["content"] = {MEDIA_TYPE: content}
