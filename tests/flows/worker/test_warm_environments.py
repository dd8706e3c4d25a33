"""Zygotes of workflow environments: real ones, and jobs that ask for supervisors."""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from flows.environments.environment import Environment
from flows.environments.variables import visible_variables
from flows.environments.warm import WARM_START_VARIABLE, WarmStart, start_supervisor
from flows.snakemake_process.supervisor import LOCKS, Start
from flows.worker.warm_environments import WarmEnvironments, WarmSettings
from tests.flows.executions import HERE
from tests.support import children_that_run


@asynccontextmanager
async def warm(**settings: int | float) -> AsyncIterator[WarmEnvironments]:
    environments = WarmEnvironments(WarmSettings.model_validate(settings), visible_variables())
    environments.start()
    os.environ[WARM_START_VARIABLE] = str(environments.descriptor)
    try:
        yield environments
    finally:
        del os.environ[WARM_START_VARIABLE]
        environments.close()


async def version_from(environment: Environment, directory: Path) -> str:
    """What `snakemake --version` writes when a job of this environment runs it."""
    control = start_supervisor(environment, visible_variables())
    log = directory / "snakemake.log"
    log.unlink(missing_ok=True)
    start = Start(("--version",), str(directory), str(log), visible_variables())
    lock = os.open(directory / "work.lock", os.O_RDWR | os.O_CREAT)
    with control:
        socket.send_fds(control, [LOCKS], [lock])
        control.sendall(start.to_line())
        control.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=control)
        told = json.loads((await reader.read()).splitlines()[-1])
        writer.close()
    os.close(lock)
    assert (told["type"], told["exit_code"]) == ("engine_exited", 0), log.read_text()
    return log.read_text().strip()


def beside(environment: Environment, link: Path) -> Environment:
    """The same interpreter under another name: another environment to the worker."""
    link.write_text(f'#!/bin/sh\nexec {environment.python} "$@"\n')
    link.chmod(0o755)
    return replace(environment, python=link)


def zygotes() -> list[psutil.Process]:
    return children_that_run("flows.snakemake_process.zygote")


def test_the_second_job_of_an_environment_starts_without_its_imports(tmp_path: Path) -> None:
    async def run() -> tuple[float, float]:
        async with warm():
            times = []
            for _ in range(2):
                begun = time.monotonic()
                assert (await version_from(HERE, tmp_path)).startswith("9.")
                times.append(time.monotonic() - begun)
            assert len(zygotes()) == 1
            return times[0], times[1]

    first, second = asyncio.run(run())
    assert second < first / 2


def test_a_zygote_that_was_killed_is_started_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with warm():
            await version_from(HERE, tmp_path)
            (before,) = zygotes()
            before.kill()
            before.wait()
            await version_from(HERE, tmp_path)
            assert [each.pid for each in zygotes()] != [before.pid]

    asyncio.run(run())
    assert zygotes() == []


def test_of_more_than_the_operator_allows_the_one_used_longest_ago_ends(tmp_path: Path) -> None:
    async def run() -> None:
        names = {name: beside(HERE, tmp_path / name) for name in ("a", "b", "c")}
        async with warm(warm_environments=2) as environments:
            for name in ("a", "b", "a", "c"):
                await version_from(names[name], tmp_path)
            kept = [Path(start.python).name for start in environments.warm]
            assert kept == ["a", "c"]
            assert len(zygotes()) == 2

    asyncio.run(run())


def test_more_memory_than_the_operator_allows_is_given_back(tmp_path: Path) -> None:
    async def run() -> None:
        names = [beside(HERE, tmp_path / name) for name in ("a", "b")]
        async with warm(warm_memory_mb=64) as environments:
            for environment in names:
                await version_from(environment, tmp_path)
            assert [Path(start.python).name for start in environments.warm] == ["b"]

    asyncio.run(run())


def test_one_that_no_job_uses_ends(tmp_path: Path) -> None:
    async def run() -> None:
        async with warm(warm_idle_seconds=0.3) as environments:
            await version_from(HERE, tmp_path)
            deadline = time.monotonic() + 20
            while environments.warm:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            assert zygotes() == []

    asyncio.run(run())


def test_an_environment_that_can_not_start_closes_the_jobs_socket(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)

    async def run() -> bytes:
        async with warm() as environments:
            control = start_supervisor(replace(HERE, python=broken), visible_variables())
            control.setblocking(False)
            received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(control, 1), 20)
            assert WarmStart(str(broken), str(HERE.runtime)) not in environments.warm
            return received

    assert asyncio.run(run()) == b"", "the flow process reports that Snakemake vanished"
