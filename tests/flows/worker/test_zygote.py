"""The zygote, from the worker's side: real processes, and no Prefect behind them."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import psutil
import pytest

from flows.worker.zygote_client import FlowProcess, ZygoteClient
from tests.support import children_that_run


@asynccontextmanager
async def started() -> AsyncIterator[ZygoteClient]:
    zygote = ZygoteClient()
    await zygote.start()
    try:
        yield zygote
    finally:
        zygote.close()


async def fork(zygote: ZygoteClient, job_id: UUID | None = None) -> FlowProcess:
    """A flow process that waits for a Prefect which is not there."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}/api"
    environment = {**os.environ, "PREFECT_API_URL": address}
    return await zygote.fork(job_id or uuid4(), environment)


def zygotes() -> list[int]:
    """Their pids."""
    return [child.pid for child in children_that_run("flows.worker.zygote")]


def test_a_flow_process_that_is_killed_is_reported_with_its_signal() -> None:
    async def run() -> int | None:
        async with started() as zygote:
            process = await fork(zygote)
            assert psutil.Process(process.pid).create_time() == pytest.approx(
                float(process.identifier.rsplit(":", 1)[1])
            )
            process.send(signal.SIGKILL)
            return await process.wait()

    assert asyncio.run(run()) == -signal.SIGKILL


def test_flow_processes_outlive_their_zygote_and_the_next_fork_starts_another() -> None:
    async def run() -> None:
        async with started() as zygote:
            first = await fork(zygote)
            (before,) = zygotes()
            os.kill(before, signal.SIGKILL)
            while zygotes():
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)  # until the client has seen the end of its socket
            assert psutil.pid_exists(first.pid)
            second = await fork(zygote)
            assert before not in zygotes()
            for process in (first, second):
                process.send(signal.SIGKILL)
            assert await first.wait() is None, "nobody could collect its exit code"
            assert await second.wait() == -signal.SIGKILL

    asyncio.run(run())


def test_a_fork_fails_whose_request_a_killed_zygote_has_not_read_and_the_next_starts_another() -> None:
    """Its end then resets the connection: the client sees an error instead of the end of the stream."""

    async def run() -> int | None:
        async with started() as zygote:
            (before,) = zygotes()
            os.kill(before, signal.SIGSTOP)
            unread = asyncio.create_task(fork(zygote))
            await asyncio.sleep(0.1)  # until the request is sent
            os.kill(before, signal.SIGKILL)
            with pytest.raises(RuntimeError, match="ended before it could fork"):
                await asyncio.wait_for(unread, 10)
            second = await fork(zygote)
            second.send(signal.SIGKILL)
            return await second.wait()

    assert asyncio.run(run()) == -signal.SIGKILL


def test_closing_ends_the_zygote_and_leaves_its_flow_processes() -> None:
    async def run() -> int:
        async with started() as zygote:
            process = await fork(zygote)
        assert zygotes() == []
        return process.pid

    pid = asyncio.run(run())
    assert psutil.pid_exists(pid)
    os.kill(pid, signal.SIGKILL)
