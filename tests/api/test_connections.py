"""How long the service keeps a connection on which nobody asks."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

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
