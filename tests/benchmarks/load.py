"""A load of HTTP requests from one process, light enough to leave the cores to the servers."""

import asyncio
import statistics
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.benchmarks.processes import machine_cpu


@dataclass(frozen=True)
class Load:
    """What a number of clients got in some seconds."""

    per_second: float
    p50_ms: float
    failures: int
    cpu_ms: float
    """Of the whole machine for each request, this client's included."""


def get_for(urls: list[str], clients: int, seconds: float) -> Load:
    """Every client asks for one of `urls` after the other."""
    return asyncio.run(_run(lambda number: _request("GET", urls[number % len(urls)]), clients, seconds))


def post_times(
    url: str, body: bytes, clients: int, seconds: float, media_type: str = "application/json"
) -> Load:
    return asyncio.run(_run(lambda _: _request("POST", url, body, media_type), clients, seconds))


def _request(
    method: str, url: str, body: bytes = b"", media_type: str = "application/json"
) -> tuple[str, int, bytes]:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    user, _, host = parts.netloc.rpartition("@")
    password = f"Authorization: Basic {b64encode(user.encode()).decode()}\r\n" if user else ""
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media_type}\r\n{password}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return parts.hostname or "", parts.port or 80, head.encode() + body


async def _run(request: Callable[[int], tuple[str, int, bytes]], clients: int, seconds: float) -> Load:
    times: list[float] = []
    failures = 0
    ends = time.monotonic() + seconds

    async def client(number: int) -> None:
        nonlocal failures
        host, port, _ = request(0)
        reader, writer = await asyncio.open_connection(host, port)
        while time.monotonic() < ends:
            _, _, message = request(number)
            number += clients
            began = time.monotonic()
            writer.write(message)
            status = await _status_of_answer(reader)
            times.append(time.monotonic() - began)
            failures += status >= 400
        writer.close()

    used, began = machine_cpu(), time.monotonic()
    await asyncio.gather(*(client(number) for number in range(clients)))
    took, used = time.monotonic() - began, machine_cpu() - used
    return Load(len(times) / took, statistics.median(times) * 1000, failures, used / len(times) * 1000)


async def _status_of_answer(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end; both servers send `Content-Length`."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])
