"""One of several processes that serve Prefect's API on one port, without Prefect's services.

The kernel spreads connections over all that listen (`SO_REUSEPORT`). Processes that take connections
from one queue, as those of `prefect server start --workers` do, may leave all kept ones to one of them,
and Prefect starts them without the changes that `deployments.server` makes.
"""

import argparse
import asyncio
import socket
from collections.abc import Sequence

import uvicorn
from prefect.server.api.server import create_app
from prefect.server.database import provide_database_interface
from prefect.settings import get_current_settings
from prefect_redis.client import get_async_redis_client
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_BROKER_SECONDS = 2.0


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m deployments.server api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4200)
    options = parser.parse_args(arguments)
    settings = get_current_settings().server
    config = uvicorn.Config(
        make_app(),
        log_level=settings.logging_level.lower(),
        timeout_keep_alive=settings.api.keepalive_timeout,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[_listen(options.host, options.port)])


def make_app() -> Starlette:
    """Prefect's API, whose readiness says when Valkey is away: it could create no flow runs then."""
    app = create_app(final=True, webserver_only=True)
    app.router.routes.insert(0, Route("/api/ready", _ready))
    return app


async def _ready(_: Request) -> JSONResponse:
    """In the place of Prefect's own, which looks at the database only."""
    if not await provide_database_interface().is_db_connectable():
        return JSONResponse({"message": "Database is not available"}, 503)
    if not await _broker_answers():
        return JSONResponse({"message": "Valkey is not available"}, 503)
    return JSONResponse({"message": "OK"})


async def _broker_answers() -> bool:
    try:
        async with asyncio.timeout(_BROKER_SECONDS):
            await get_async_redis_client().ping()
    except (RedisError, OSError):  # a timeout is an OSError, too
        return False
    return True


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(address)
    return listening
