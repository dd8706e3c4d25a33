"""The facade as an ASGI application: its routes and middleware, and every error as a problem."""

import logging
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from inspect import isclass
from typing import Any, get_type_hints

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.auth.callers import declare_tokens
from api.auth.middleware import AuthMiddleware
from api.auth.rates import Rates
from api.auth.startup import token_source
from api.events.streams import events_router
from api.gateway.routes import gateway_router
from api.insight.routes import insight_router
from api.jobs.routes import jobs_router
from api.lifespan import lifespan
from api.operation.observation import Observation
from api.operation.routes import service_router
from api.operation.telemetry import is_wanted, trace
from api.settings import Settings
from api.web.problems import MEDIA_TYPE, Problem, ProblemError, StorageUnavailable, problem_response
from api.web.reference import reference_router
from api.web.validation import problem_of
from api.wes.routes import wes_router
from api.workflows.routes import workflows_router
from api.workflows.schedule_routes import schedules_router
from api.workflows.trigger_routes import triggers_router
from flows.contract.storage import StorageError

_log = logging.getLogger(__name__)

# Events come first: /jobs/{job_id} would take the "events" of /jobs/events for an id.
_ROUTERS = (
    events_router,
    jobs_router,
    insight_router,
    workflows_router,
    schedules_router,
    triggers_router,
    service_router,
    reference_router,
    wes_router,
    gateway_router,
)


class Facade(FastAPI):
    """Its OpenAPI document declares tokens, and the media type of problems."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            for path in super().openapi()["paths"].values():
                for operation in path.values():
                    _declare_problems(operation["responses"])
            declare_tokens(super().openapi())
        return super().openapi()


def create_app(settings: Settings) -> FastAPI:
    """The facade, not connected yet. Its lifespan needs `PREFECT_API_URL`."""
    tokens = token_source(settings.tokens, settings.tokens_file)
    at_end = ExitStack()
    app = Facade(
        title="prefect-snakemake",
        summary="Run Snakemake workflows as Prefect flow runs.",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        lifespan=partial(lifespan, settings=settings, tokens=tokens, at_end=at_end),
        exception_handlers={
            ProblemError: _on_problem,
            RequestValidationError: _on_invalid_request,
            HTTPException: _on_http_exception,
            StorageError: _on_storage_error,
            ClientDisconnect: _on_disconnect,
            Exception: _on_defect,
        },
    )
    rates = Rates(settings.rate_per_second, settings.rate_burst) if settings.rate_per_second else None
    app.add_middleware(AuthMiddleware, tokens=tokens, rates=rates)
    app.add_middleware(Observation)
    if is_wanted(settings.otel):
        at_end.callback(trace(app))
    for each in _ROUTERS:
        app.include_router(each)
    return app


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
        resolution="Use a path and a method that /docs lists.",
    )
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(request))  # Starlette names the methods of one route only
    return problem_response(problem, headers)


def _methods_at(request: Request) -> list[str]:
    """The methods that the path of this request supports."""
    routes = [route for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    found = (route.methods or set() for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted(set[str]().union(*found))


async def _on_storage_error(request: Request, error: StorageError) -> JSONResponse:
    """The details of the storage are in the log, for the operator; the response omits them."""
    _log.error("%s %s: %s", request.method, request.url.path, error)
    problem = StorageUnavailable(
        "The storage of bundles and outputs failed.",
        "Try again later. If it fails again, report it to the operator: the service's log has the details.",
    )
    return await _on_problem(request, problem)


async def _on_disconnect(request: Request, error: ClientDisconnect) -> Response:
    """The client has left, so nobody reads this response."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def _on_defect(request: Request, error: Exception) -> JSONResponse:
    """An unexpected error. The server logs its traceback after the response."""
    problem = Problem(
        title="Internal error",
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        detail=f"{request.method} {request.url.path} failed because of a defect of this service "
        f"({type(error).__name__}).",
        instance=request.url.path,
        resolution="Report this to the operator: the service's log has the details.",
    )
    return problem_response(problem, {})


def _request_model(request: Request) -> type[BaseModel] | None:
    """The model of the body or the query of this request."""
    hints = get_type_hints(request.scope["endpoint"])
    hints.pop("return", None)
    return next((kind for kind in hints.values() if isclass(kind) and issubclass(kind, BaseModel)), None)


def _declare_problems(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        if status >= "400":
            (content,) = response["content"].values()  # listed under the media type of a success
            if content["schema"].get("$ref", "").endswith("/Problem"):
                response["content"] = {MEDIA_TYPE: content}
