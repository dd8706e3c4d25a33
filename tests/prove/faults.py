"""The faults: what is killed, stopped or filled, and what a job may lose by it."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from deployments.local import LocalStack
from deployments.processes import StackProcess
from tests.benchmarks.processes import ENVIRONMENT_ZYGOTE, FLOW_ZYGOTE
from tests.database import database_of

_AGAIN_SECONDS = 2.5
STOP_SECONDS = 20.0
FULL_SECONDS = 10.0
REPLACED_SECONDS = 12.0
"""A process of the Prefect server takes 10 to 12 seconds to start while jobs run on two cores."""

_CHUNK = bytes(1 << 20)

Inflict = Callable[[LocalStack], contextlib.AbstractContextManager[None]]
"""Begins the fault when it is entered, and ends it when it is left."""


@dataclass(frozen=True)
class Fault:
    """Something that happens to a running service."""

    name: str
    inflict: Inflict
    seconds: float = 0.0
    """How long it lasts."""
    ends_jobs: bool = False
    """Whether jobs that run may fail of it. They must say so, and complete when they are resumed."""
    needs_own_disk: bool = False
    needs_larger_server: bool = False
    """Whether what it kills is there only with several processes of the Prefect server."""


class NoVictimError(Exception):
    """What the fault would kill does not run at this moment."""


def _children(process: psutil.Process, module: str = "") -> list[psutil.Process]:
    """Its living children that run this module."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in process.children():
            with contextlib.suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE and module in " ".join(child.cmdline()):
                    found.append(child)
    return found


def _zygotes(stack: LocalStack, module: str) -> list[psutil.Process]:
    return _children(psutil.Process(stack.worker.pid), module)


def _flow_processes(stack: LocalStack) -> list[psutil.Process]:
    return [child for zygote in _zygotes(stack, FLOW_ZYGOTE) for child in _children(zygote)]


def _keepers(stack: LocalStack) -> list[psutil.Process]:
    return [child for zygote in _zygotes(stack, ENVIRONMENT_ZYGOTE) for child in _children(zygote)]


def _keepers_and_wardens(stack: LocalStack) -> list[psutil.Process]:
    """The processes that wait outside of the rooms of jobs."""
    keepers = _keepers(stack)
    return [*keepers, *(child for keeper in keepers for child in _children(keeper, ENVIRONMENT_ZYGOTE))]


def _snakemakes(stack: LocalStack) -> list[psutil.Process]:
    """Each leads a process group; what is above it does not."""
    found = []
    for keeper in _keepers(stack):
        below = _children(keeper, ENVIRONMENT_ZYGOTE)
        while below and not _leads_a_group(below[0]):
            below = _children(below[0], ENVIRONMENT_ZYGOTE)
        found += below[:1]
    return found


def _leads_a_group(process: psutil.Process) -> bool:
    try:
        return os.getpgid(process.pid) == process.pid
    except ProcessLookupError:
        return False


def _one_of(find: Callable[[LocalStack], list[psutil.Process]]) -> Inflict:
    """Kill one of what `find` finds."""

    @contextmanager
    def inflict(stack: LocalStack) -> Iterator[None]:
        victims = find(stack)
        if not victims:
            raise NoVictimError
        with contextlib.suppress(psutil.NoSuchProcess):
            random.choice(victims).kill()
        yield

    return inflict


def _part(pid_of: Callable[[LocalStack], int]) -> Inflict:
    """Kill a part of the stack."""
    return _one_of(lambda stack: [psutil.Process(pid_of(stack))])


@contextmanager
def _worker_and_flow_processes(stack: LocalStack) -> Iterator[None]:
    victims = [psutil.Process(stack.worker.pid), *_flow_processes(stack)]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    yield


@contextmanager
def _connections_ended(stack: LocalStack) -> Iterator[None]:
    """All that are open to PostgreSQL, as when it fails over or a network forgets them."""
    asyncio.run(_end_connections(stack))
    yield


async def _end_connections(stack: LocalStack) -> None:
    async with database_of(stack) as connection:
        ended = await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    if not ended:
        raise NoVictimError


@contextmanager
def _server_stopped(stack: LocalStack) -> Iterator[None]:
    os.kill(stack.server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stack.server.pid, signal.SIGCONT)


@contextmanager
def _servers_replaced(stack: LocalStack) -> Iterator[None]:
    """The first, and the others when its successor takes requests: as a deployment does it."""
    first, *others = stack.servers
    os.kill(first.pid, signal.SIGTERM)
    yield
    for other in others:
        os.kill(other.pid, signal.SIGTERM)


@contextmanager
def _disk_full(stack: LocalStack) -> Iterator[None]:
    """The whole of JOBS_HOME, with the database."""
    filler = stack.settings.home / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(_CHUNK)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _nothing(_: LocalStack) -> Iterator[None]:
    yield


def _optional(process: StackProcess | None) -> int:
    if process is None:
        raise NoVictimError
    return process.pid


def _postmaster(stack: LocalStack) -> int:
    file = stack.settings.home / "postgres" / "postmaster.pid"
    return int(file.read_text().split()[0])


NOTHING = Fault("nothing", _nothing)
"""To measure how long the jobs take by themselves."""

FAULTS = (
    Fault("SIGKILL of a flow process", _one_of(_flow_processes), ends_jobs=True),
    Fault("SIGKILL of Snakemake", _one_of(_snakemakes), ends_jobs=True),
    Fault("SIGKILL of a supervisor", _one_of(_keepers_and_wardens), ends_jobs=True),
    Fault("SIGKILL of the worker's zygote", _one_of(lambda stack: _zygotes(stack, FLOW_ZYGOTE))),
    Fault(
        "SIGKILL of an environment's zygote",
        _one_of(lambda stack: _zygotes(stack, ENVIRONMENT_ZYGOTE)),
        ends_jobs=True,  # one whose supervisor was just requested
    ),
    Fault("SIGKILL of the worker", _part(lambda stack: stack.worker.pid)),
    Fault("SIGKILL of the worker and all flow processes", _worker_and_flow_processes, ends_jobs=True),
    Fault("SIGKILL of the Prefect server", _part(lambda stack: stack.server.pid)),
    Fault(
        "SIGKILL of a process of the Prefect server",
        _part(lambda stack: random.choice(stack.servers).pid),
        needs_larger_server=True,
    ),
    Fault(
        "SIGTERM of all processes of the Prefect server in turn",
        _servers_replaced,
        REPLACED_SECONDS,
        needs_larger_server=True,
    ),
    Fault(
        "SIGKILL of Prefect's services",
        _part(lambda stack: _optional(stack.services)),
        needs_larger_server=True,
    ),
    Fault("SIGKILL of Valkey", _part(lambda stack: _optional(stack.valkey)), needs_larger_server=True),
    Fault("SIGKILL of PostgreSQL", _part(_postmaster)),
    Fault("end of all connections to PostgreSQL", _connections_ended),
    Fault("SIGKILL of the jobs API", _part(lambda stack: stack.api.pid)),
    Fault("SIGSTOP of the Prefect server", _server_stopped, STOP_SECONDS),
    Fault("disk full", _disk_full, FULL_SECONDS, ends_jobs=True, needs_own_disk=True),
)


def inflict(fault: Fault, stack: LocalStack, meanwhile: Callable[[], None], patience: float = 10.0) -> None:
    """The fault from beginning to end. Waits until there is something to kill."""
    deadline = time.monotonic() + patience
    while True:
        try:
            with fault.inflict(stack):
                ends = time.monotonic() + fault.seconds
                while time.monotonic() < ends:
                    meanwhile()
            return
        except NoVictimError:
            if time.monotonic() > deadline:
                raise
            # Not at its very first moment, which would always be the same one.
            again = time.monotonic() + random.uniform(0, _AGAIN_SECONDS)
            while time.monotonic() < again:
                meanwhile()
