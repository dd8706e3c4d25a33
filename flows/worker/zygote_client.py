"""The worker's side of the zygote: starts it, requests flow processes, and receives their exit codes."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect.settings import get_current_settings

from flows.environments.warm import WARM_START_VARIABLE
from flows.termination import CANCEL_SIGNAL
from flows.worker.messages import Fork
from flows.workspace.workspace import Workspace

_LOOK_SECONDS = 0.2

CANCEL_SECONDS = 120.0
"""A flow process that has not cancelled its job after this time is killed. It needs 1–8 s, 5 s more for
each thousand rule jobs that Prefect has to record, and the time to publish outputs."""

logger = logging.getLogger("prefect.workers.snakemake")


@dataclass
class FlowProcess:
    """A forked flow process. It is the zygote's child, so the zygote reports its end."""

    pid: int
    identifier: str
    _exit_code: "asyncio.Future[int | None]"

    async def wait(self) -> int | None:
        """Its exit code, negative for a signal; None if it is unknown."""
        return await asyncio.shield(self._exit_code)

    async def cancel(self) -> None:
        """Ask it to cancel its job. Kill it if it does not end."""
        self.send(CANCEL_SIGNAL)
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        if not self._exit_code.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def mark_exited(self, exit_code: int | None) -> None:
        if not self._exit_code.done():
            self._exit_code.set_result(exit_code)


@dataclass(frozen=True)
class AdoptedProcess:
    """The flow process of an earlier worker, known by the lock of its job's directory."""

    workspace: Workspace

    async def wait(self) -> None:
        while self.workspace.holder():
            await asyncio.sleep(_LOOK_SECONDS)

    def send(self, number: signal.Signals) -> None:
        if pid := self.workspace.holder():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@dataclass
class ZygoteClient:
    """The worker's end of the zygote's socket; restarts the zygote when it is gone."""

    warm_starts: int | None = None
    """The descriptor on which flow processes request supervisors. They inherit it."""
    settings: Mapping[str, str] = field(
        default_factory=lambda: get_current_settings().to_environment_variables(exclude_unset=True)
    )
    """Prefect's settings for flow processes. Settings from a profile are included: they need not read it."""
    _process: "subprocess.Popen[bytes] | None" = None
    _writer: asyncio.StreamWriter | None = None
    _forks: dict[str, "asyncio.Future[FlowProcess]"] = field(default_factory=dict)
    _flow_processes: dict[int, FlowProcess] = field(default_factory=dict)
    _reader: "asyncio.Task[None] | None" = None
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> asyncio.StreamWriter:
        """Start the zygote, wait until it has imported everything, and return the writer to its socket."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.worker.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno(), *([] if self.warm_starts is None else [self.warm_starts])],
                cwd=Path(__file__).parents[2],
                env={
                    **os.environ,
                    **self.settings,
                    **({} if self.warm_starts is None else {WARM_START_VARIABLE: str(self.warm_starts)}),
                },
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        if not await reader.readline():
            raise RuntimeError(f"the zygote ended with exit code {self._process.wait()} while starting")
        self._reader = asyncio.create_task(self._read(reader))
        self._writer = writer
        return writer

    async def fork(self, flow_run_id: UUID, environment: dict[str, str]) -> FlowProcess:
        """A flow process for this flow run. Raises `RuntimeError` if the zygote ends meanwhile."""
        async with self._starting:
            writer = self._writer or await self.start()
        forked: asyncio.Future[FlowProcess] = asyncio.get_running_loop().create_future()
        self._forks[str(flow_run_id)] = forked
        message = Fork(flow_run_id=str(flow_run_id), environment=environment)
        writer.write(json.dumps(asdict(message)).encode() + b"\n")
        return await forked

    def close(self) -> None:
        """Stop the zygote. Running flow processes continue."""
        if self._reader is not None:
            self._reader.cancel()
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):  # in place of the end, if it leaves a request unread
            while line := await reader.readline():
                self._on_message(json.loads(line))
        logger.error("The zygote has ended; the next job starts a new one.")
        await self._outlive_zygote()

    def _on_message(self, message: dict[str, Any]) -> None:
        if "flow_run_id" in message:
            self._on_forked(message)
        elif (process := self._flow_processes.pop(message["pid"], None)) is not None:
            process.mark_exited(message["exit_code"])

    def _on_forked(self, message: dict[str, Any]) -> None:
        pid = message["pid"]
        process = FlowProcess(
            pid=pid,
            identifier=f"{socket.gethostname()}:{pid}:{message['started_at']}",
            _exit_code=asyncio.get_running_loop().create_future(),
        )
        self._flow_processes[pid] = process
        self._forks.pop(message["flow_run_id"]).set_result(process)

    async def _outlive_zygote(self) -> None:
        """Watch the flow processes by their pids, because their parent, the zygote, is gone."""
        self._writer = None
        for forked in self._forks.values():
            forked.set_exception(RuntimeError("the zygote ended before it could fork"))
        self._forks.clear()
        orphans, self._flow_processes = self._flow_processes, {}
        while orphans:
            for pid in [pid for pid in orphans if not psutil.pid_exists(pid)]:
                orphans.pop(pid).mark_exited(None)
            await asyncio.sleep(0.5)
