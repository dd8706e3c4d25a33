"""Keeps a zygote for each workflow environment in use: started on first use, stopped when unused.

Number and memory are limited: the least recently used zygote is stopped first.
"""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.environments.warm import LARGEST_MESSAGE, WarmStart, runtime_command, runtime_variables
from flows.snakemake_process.zygote import FORK, READY

_LOOK_SECONDS = 30.0
_MEBIBYTE = 1 << 20

logger = logging.getLogger("prefect.workers.snakemake")


class WarmSettings(BaseSettings):
    """The operator's settings for zygotes, the processes from which jobs start quickly."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    warm_environments: int = Field(
        default=4,
        ge=1,
        le=100,
        description="Maximum number of environments with a warm process, from which jobs start at once.",
    )
    warm_memory_mb: int = Field(
        default=1024, ge=64, description="Maximum memory of all warm processes together, in MiB."
    )
    warm_idle_seconds: float = Field(
        default=1800, gt=0, description="Stops a warm process that no job has used for longer."
    )


@dataclass
class _Zygote:
    control: socket.socket
    process: "subprocess.Popen[bytes]"
    ready: "asyncio.Task[None]"
    used_at: float = field(default_factory=time.monotonic)

    def memory_mb(self) -> float:
        """Memory that it does not share with other processes, in MiB."""
        try:
            return psutil.Process(self.process.pid).memory_full_info().uss / _MEBIBYTE
        except psutil.Error:
            return 0.0

    def end(self) -> None:
        self.ready.cancel()
        self.control.close()
        self.process.kill()
        self.process.wait()


class WarmEnvironments:
    """The zygotes of one worker."""

    def __init__(self, settings: WarmSettings, variables: Mapping[str, str]) -> None:
        """`variables` is the environment of a zygote. It must not contain secrets of the service."""
        self._settings = settings
        self._variables = variables
        self._zygotes: OrderedDict[WarmStart, _Zygote] = OrderedDict()
        self._requests, self._flows_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None

    @property
    def descriptor(self) -> int:
        """The descriptor on which flow processes request supervisors. They inherit it."""
        return self._flows_end.fileno()

    @property
    def warm(self) -> list[WarmStart]:
        """Environments that have a zygote; the most recently used one is last."""
        return list(self._zygotes)

    def start(self) -> None:
        self._requests.setblocking(False)
        asyncio.get_running_loop().add_reader(self._requests, self._on_request)
        self._watch = asyncio.create_task(self._end_unused())

    def close(self) -> None:
        """Stop the zygotes. Supervisors that they have forked continue."""
        asyncio.get_running_loop().remove_reader(self._requests)
        for task in (*self._tasks, *([self._watch] if self._watch else [])):
            task.cancel()
        for zygote in self._zygotes.values():
            zygote.end()
        self._zygotes.clear()
        self._requests.close()
        self._flows_end.close()

    def prepare(self, start: WarmStart) -> None:
        """Start a zygote before the first job requests it."""
        self._zygote(start)

    def _on_request(self) -> None:
        with contextlib.suppress(BlockingIOError):
            message, descriptors, _, _ = socket.recv_fds(self._requests, LARGEST_MESSAGE, 1)
            for descriptor in descriptors:
                task = asyncio.create_task(self._serve(WarmStart.from_message(message), descriptor))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _serve(self, start: WarmStart, descriptor: int) -> None:
        """Pass on the job's socket. If that fails, close it, which the flow process notices."""
        try:
            zygote = self._zygote(start)
            await asyncio.shield(zygote.ready)
            zygote.used_at = time.monotonic()
            self._zygotes.move_to_end(start)
            socket.send_fds(zygote.control, [FORK], [descriptor])
            self._keep_within_bounds()
        except Exception:
            logger.exception("Could not start a process with %s.", start.python)
            if (broken := self._zygotes.pop(start, None)) is not None:
                broken.end()
        finally:
            os.close(descriptor)

    def _zygote(self, start: WarmStart) -> _Zygote:
        zygote = self._zygotes.get(start)
        if zygote is not None and zygote.process.poll() is None:
            return zygote
        if zygote is not None:
            zygote.end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                runtime_command(start.python, "zygote", theirs.fileno()),
                pass_fds=[theirs.fileno()],
                cwd=start.runtime,
                env=runtime_variables(start.runtime, self._variables),
            )
        self._zygotes[start] = _Zygote(ours, process, asyncio.create_task(_until_ready(ours)))
        return self._zygotes[start]

    def _keep_within_bounds(self) -> None:
        memory = {start: zygote.memory_mb() for start, zygote in self._zygotes.items()}
        for start in list(self._zygotes)[:-1]:
            is_too_many = len(self._zygotes) > self._settings.warm_environments
            if not is_too_many and sum(memory.values()) <= self._settings.warm_memory_mb:
                return
            del memory[start]
            self._zygotes.pop(start).end()

    async def _end_unused(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._settings.warm_idle_seconds))
            oldest = time.monotonic() - self._settings.warm_idle_seconds
            for start, zygote in list(self._zygotes.items()):
                if zygote.ready.done() and zygote.used_at < oldest:
                    self._zygotes.pop(start).end()


async def _until_ready(control: socket.socket) -> None:
    control.setblocking(False)
    if await asyncio.get_running_loop().sock_recv(control, len(READY)) != READY:
        raise RuntimeError("its zygote ended during its start; the log above says why")
