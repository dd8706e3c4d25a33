"""Logs, counts and times every request."""

import logging
import re
import time
from contextvars import ContextVar
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.callers import OPEN_PATHS, Caller
from api.operation.metrics import UNKNOWN_ROUTE
from api.services import Services
from flows.contract.job_tokens import GATEWAY_PATH

ACCESS_LOGGER = "prefect_snakemake.access"
"""The logger of the access log. Operators filter on it, so it stays the same when the module moves."""

job_id_of_request: ContextVar[str | None] = ContextVar("job_id_of_request", default=None)
"""The job in the path or in the answer, added to every log line of the request."""

_log = logging.getLogger(ACCESS_LOGGER)
_JOB_ID = re.compile(r"/(?:jobs|runs)/([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})(?:/|$)", re.IGNORECASE)


class Observation:
    """The outermost middleware, so that rejected requests are included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = job_id_of_request.set(_job_id_in(scope["path"]))
        begun = time.monotonic()
        answered: tuple[int, float] | None = None

        async def send_and_look(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = message["status"], time.monotonic()
                # The new job, if the request created one.
                if made := _job_id_in(Headers(raw=message["headers"]).get("location", "")):
                    job_id_of_request.set(made)
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        finally:
            # Starlette answers an exception that gets this far with 500.
            status, moment = answered or (500, time.monotonic())
            self._observe(scope, status, moment - begun)
            job_id_of_request.reset(token)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        app = scope.get("app")
        # Set when the lifespan starts.
        services: Services | None = getattr(app.state, "services", None) if app else None
        if services is not None:
            route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
            services.metrics.observe_request(scope["method"], route, status, seconds)
        caller: Caller | None = scope.get("state", {}).get("caller")
        # Probes and tasks of jobs ask every few seconds: only failures are of interest.
        is_routine = scope["path"] in OPEN_PATHS or scope["path"].startswith(GATEWAY_PATH)
        level = logging.DEBUG if is_routine and status < 500 else logging.INFO
        path = quote(
            scope["path"]
        )  # without the query; quoted, because a line break in it would forge a log line
        _log.log(
            level,
            "%s %s %d",
            scope["method"],
            path,
            status,
            extra={
                "method": scope["method"],
                "path": path,
                "status": status,
                "seconds": round(seconds, 6),
                "caller": caller.name if caller else None,
                "client": scope["client"][0] if scope.get("client") else None,
            },
        )


def _job_id_in(path: str) -> str | None:
    found = _JOB_ID.search(path)
    return found.group(1).lower() if found else None
