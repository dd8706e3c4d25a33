"""How long the service keeps a connection on which nobody asks."""

import contextlib
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.api.servers import facade_process


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
