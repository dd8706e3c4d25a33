"""A process that has imported Prefect, runs no flow itself, and forks flow processes.

Imports are most of the cost of a small job: 4.6 s of CPU for Prefect. A forked process inherits them
and only pays for the memory pages that it changes. A process of the workflow's environment imports
Snakemake (`flows.snakemake_process.zygote`).

    worker ──socket──> zygote ──fork──> flow process

- The zygote never starts a thread and never runs a flow, so a forked process has a clean state.
- A flow process gets its own session and environment. Of the zygote's file descriptors, it only keeps
  the standard ones and the one on which it requests a supervisor.
- When the worker is gone, the zygote ends. Running flow processes continue.

Messages are JSON lines: the worker sends `Fork`, the zygote answers with `Forked` and, later, `Exited`.
"""

import contextlib
import errno
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, cast
from uuid import UUID

import psutil
from prefect.client.schemas.objects import State
from prefect.context import SettingsContext, root_settings_context
from prefect.engine import handle_engine_signals
from prefect.flow_engine import run_flow

from flows import termination
from flows.environments.warm import WARM_START_VARIABLE
from flows.first_read import read_flow_run
from flows.job import snakemake_job
from flows.snakemake_process.supervisor import alarm_on_child_exit
from flows.worker.flow_client import client_context
from flows.worker.messages import Exited, Fork, Forked
from flows.worker.settling import ExitCode
from flows.workspace.lock import DirectoryInUse
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace

_SERVER_ERROR = 500
_OF_THE_FIRST_REQUEST = ("anyio._backends._asyncio", "encodings.idna")
"""What libraries import at the first request: 13 ms of each job."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """Prefect's settings, which take 70 ms to read, and the variables that they were read from."""

    variables: Mapping[str, str]
    settings: SettingsContext

    def context(self) -> SettingsContext:
        """The settings for a job. They are read again if its environment differs."""
        known = _prefect_variables(os.environ) == self.variables
        root = self.settings if known else root_settings_context()
        # The worker has checked the server's version, and notices at once when a flow process ends. A
        # server whose database is briefly unreachable responds with 500; a job must survive that.
        codes = root.settings.client.retry_extra_codes
        client = root.settings.client.model_copy(
            update={"server_version_check_enabled": False, "retry_extra_codes": codes or {_SERVER_ERROR}}
        )
        flows = root.settings.flows.model_copy(update={"heartbeat_frequency": None})
        settings = root.settings.model_copy(update={"client": client, "flows": flows})
        return SettingsContext(profile=root.profile, settings=settings)


def main(control: socket.socket) -> NoReturn:
    """Serve the worker at the other end of `control`."""
    inherited = Inherited(_prefect_variables(os.environ), root_settings_context())
    # Prefect's engine only logs what the states of the run show, too.
    logging.getLogger("prefect.flow_runs").setLevel(logging.WARNING)
    for module in _OF_THE_FIRST_REQUEST:
        importlib.import_module(module)
    # A garbage collection in a child would touch, and so copy, all imported objects.
    gc.collect()
    gc.freeze()
    alarm = alarm_on_child_exit()
    # Ctrl-C reaches the whole process group; the worker decides when the zygote ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lines = b""
    control.sendall(b"{}\n")  # ready
    while True:
        ready, _, _ = select.select([control.fileno(), alarm], [], [])
        if alarm in ready:
            os.read(alarm, 4096)
            _report_exits(control)
        if control.fileno() in ready:
            chunk = _receive(control)
            if not chunk:
                os._exit(0)
            *requests, lines = (lines + chunk).split(b"\n")
            for request in requests:
                _serve(Fork(**json.loads(request)), inherited, control)


def _receive(control: socket.socket) -> bytes:
    """What the worker has sent; nothing if it is gone, also if it has left messages unread."""
    try:
        return control.recv(1 << 20)
    except ConnectionResetError:
        return b""


def _serve(fork: Fork, inherited: Inherited, control: socket.socket) -> None:
    pid = os.fork()
    if pid == 0:
        _become_flow_process(fork, inherited)
    started_at = psutil.Process(pid).create_time()
    _send(control, Forked(flow_run_id=fork.flow_run_id, pid=pid, started_at=started_at))


def _report_exits(control: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _send(control, Exited(pid=pid, exit_code=os.waitstatus_to_exitcode(status)))


def _send(control: socket.socket, message: Forked | Exited) -> None:
    with contextlib.suppress(BrokenPipeError):
        control.sendall(json.dumps(asdict(message)).encode() + b"\n")


def _become_flow_process(fork: Fork, inherited: Inherited) -> NoReturn:
    exit_code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        termination.listen()
        warm_start = os.environ.get(WARM_START_VARIABLE)
        _close_all_but(warm_start)
        os.environ.clear()
        os.environ.update(fork.environment)
        if warm_start is not None:
            os.environ[WARM_START_VARIABLE] = warm_start
        flow_run_id = UUID(fork.flow_run_id)
        exit_code = _run(flow_run_id, inherited) if _lock(flow_run_id) else ExitCode.NOT_STARTED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)


def _lock(flow_run_id: UUID) -> bool:
    """Show that the job has a process, before anything else. Whether this process may run it.

    A new worker relies on it: what has no lock was never started. Other errors are the flow's to report.
    """
    try:
        Workspace(WorkspaceSettings(), flow_run_id).lock_early()
    except DirectoryInUse:
        return False
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return True


def _close_all_but(descriptor: str | None) -> None:
    """Close every descriptor except the standard ones and `descriptor`."""
    kept = 2 if descriptor is None else int(descriptor)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _run(flow_run_id: UUID, inherited: Inherited) -> int:
    """Do what `python -m prefect.engine` does, with the flow already loaded, over one connection."""
    try:
        with inherited.context(), client_context() as clients, handle_engine_signals(flow_run_id):
            flow_run = read_flow_run(clients.client, flow_run_id)
            # Prefect's server would allow a job to run that was cancelled a moment ago.
            if flow_run.state is not None and flow_run.state.is_final():
                return ExitCode.FINAL
            # With a deployment id, the engine would watch for suspensions, which only tasks obey.
            unnamed = flow_run.model_copy(update={"deployment_id": None})
            state = cast(State[Any], run_flow(snakemake_job, flow_run=unnamed, return_type="state"))
            return ExitCode.FINAL if state.is_final() else ExitCode.NOT_FINAL
    except SystemExit as end:
        return (isinstance(end.code, int) and end.code) or ExitCode.NOT_FINAL
    return ExitCode.NOT_FINAL


def _prefect_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of Prefect's settings; `PREFECT__…` variables belong to one flow run."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("PREFECT_") and not name.startswith("PREFECT__")
    }


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
