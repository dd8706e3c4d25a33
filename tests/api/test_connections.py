"""How long the service keeps a connection on which nobody asks, or nobody reads."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from starlette.types import Receive, Scope, Send

from api.operation.connections import protocol_of
from tests.api.servers import facade_process, serving


def test_an_idle_connection_is_kept_as_long_as_the_setting_says(prefect_api_url: str, tmp_path: Path) -> None:
    with facade_process(prefect_api_url, tmp_path, JOBS_KEEP_ALIVE_SECONDS="1") as url:
        address = urlsplit(url)
        # uvicorn keeps it for 5 seconds if nobody says otherwise.
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=3) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = connection.recv(65536)
            while more := connection.recv(65536):
                received += more
    assert received.startswith(b"HTTP/1.1 200")


def test_a_connection_without_a_request_is_ended(prefect_api_url: str, tmp_path: Path) -> None:
    with facade_process(prefect_api_url, tmp_path, JOBS_REQUEST_HEAD_SECONDS="0.3") as url:
        address = ("127.0.0.1", urlsplit(url).port or 0)
        silent = [socket.create_connection(address, timeout=10) for _ in range(200)]
        try:
            silent[0].sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n")  # the head does not end
            for connection in silent:
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
            with httpx.Client(base_url=url) as client:
                assert client.get("/livez").status_code == 200
        finally:
            for connection in silent:
                connection.close()


class Sender:
    """An application that answers without end."""

    def __init__(self) -> None:
        self.has_ended = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        ends = False
        while not ends:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            with anyio.move_on_after(0):
                ends = (await receive())["type"] == "http.disconnect"
        self.has_ended.set()


@asynccontextmanager
async def asked(sender: Sender, unread_seconds: float) -> AsyncIterator[socket.socket]:
    """A connection on which somebody has asked the sender, over a socket that holds little."""
    async with serving(sender, http=protocol_of(30, unread_seconds)) as url:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", urlsplit(url).port or 0))
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(
                client, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            )
            yield client


@pytest.mark.anyio
async def test_who_leaves_an_answer_unread_is_disconnected() -> None:
    sender = Sender()
    async with asked(sender, unread_seconds=0.3):
        with anyio.fail_after(10):
            await sender.has_ended.wait()


@pytest.mark.anyio
async def test_who_reads_slowly_is_not() -> None:
    sender = Sender()
    async with asked(sender, unread_seconds=0.3) as client:
        for _ in range(15):
            assert await asyncio.get_running_loop().sock_recv(client, 2048)
            await anyio.sleep(0.1)
        assert not sender.has_ended.is_set()
