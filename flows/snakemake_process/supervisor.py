"""Starts Snakemake, and makes sure that no process of it outlives its job.

The supervisor runs between the flow process and Snakemake's process:

    flow process ──socket──> supervisor ──fork──> driver (Snakemake) ──> rule jobs ──> their children

- If the job has a room, the supervisor moves into it first and is its first process
  (`flows.snakemake_process.room`): the kernel ends all others when it ends, even if it is killed.
- It is the *subreaper* of all its descendants: a process whose parent ends becomes the supervisor's
  child, so the supervisor finds and ends even one that has left the session (prctl(2),
  PR_SET_CHILD_SUBREAPER; on systems without it, it ends the driver's process group).
- Without a room, another such process waits for it, and does the same if the supervisor is killed.
- When the flow requests it, or when the flow process is gone (end of file on the socket), it ends all
  of them: SIGTERM to the driver's process group, so that Snakemake removes the outputs of running rule
  jobs, then SIGKILL to the rest.
- When the driver has ended, it ends the processes that the driver left behind, starts a second driver
  to create the report if the flow requested one, and sends `EngineExited`.

The flow sends the locks of the job's directory, which the supervisor holds until it exits; one JSON
line (`Start`); and optionally the word `terminate`. The driver sends event lines back. Run as a
program (`python -m flows.snakemake_process.supervisor FD`), the supervisor imports only the standard
library and psutil; the driver imports Snakemake.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, BinaryIO, NoReturn

import psutil

from flows.snakemake_process import control_groups, network, room
from flows.snakemake_process.control_groups import ControlGroup
from flows.snakemake_process.ending import Step, ending
from flows.snakemake_process.events import EngineExited, Message, encode
from flows.snakemake_process.limits import limit
from flows.snakemake_process.prctl import become_subreaper, die_with_parent

LOCKS = b"\0"
"""The message that carries the file descriptors."""

_MOST_LOCKS = 1

TERMINATE = b"terminate\n"


@dataclass(frozen=True, slots=True)
class Start:
    """The flow's request to run Snakemake."""

    argv: tuple[str, ...]
    """Arguments of `snakemake`."""
    directory: str
    """Working directory: the job's own."""
    log_path: str
    """File for stdout and stderr of Snakemake."""
    environment: Mapping[str, str]
    decisions: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `flows.snakemake_process.decisions.Decisions`."""
    report_argv: tuple[str, ...] = ()
    """Arguments of the `snakemake` that creates the report afterwards; empty for no report."""
    report_seconds: float = 0.0
    """The time limit for the report."""
    room: Mapping[str, Any] | None = None
    """Fields of `flows.snakemake_process.room.Room`; None to run beside other processes."""
    variables_in_room: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that replace others in the room."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Limits of all processes, by their names in getrlimit(2)."""
    cancel_seconds: float = 0.0
    """How long the cluster may take to end what runs on it; 0 if all runs on this machine."""

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Start":
        return cls(**json.loads(line))


def supervise(control: socket.socket) -> NoReturn:
    """Wait for a `Start` on `control`, run it to its end, and exit the process."""
    _outlive_the_flow()
    _, locks, _, _ = socket.recv_fds(control, len(LOCKS), _MOST_LOCKS)
    line = _read_line(control)
    if not line:
        os._exit(0)  # the flow closed the socket without a request
    start = Start.from_line(line)
    for lock in locks:
        os.set_inheritable(lock, False)
    # Before the room hides the file, and so that no process in it has the log of the worker open.
    _redirect_output(start.log_path)
    group = control_groups.current = control_groups.ControlGroup(start.limits)
    is_in_room = _enter(start, control, group)
    if is_in_room:
        start = replace(start, environment={**start.environment, **start.variables_in_room})
    else:
        _continue_guarded(group)
    limit(start.limits, is_in_room=is_in_room)
    driver = _start_driver(start, start.argv, control.makefile("wb"))
    exit_code, was_ended = _wait(driver, control, cancel_seconds=start.cancel_seconds)
    _end_all(driver)
    if start.report_argv and exit_code >= 0 and not was_ended:
        _make_report(start, control)
    if not is_in_room:
        group.remove()
    with contextlib.suppress(OSError):
        control.sendall(encode(EngineExited(time=time.time(), exit_code=exit_code)))
    os._exit(0)


def _enter(start: Start, control: socket.socket, group: ControlGroup) -> bool:
    """Continue in the room of the job, if it has one and the machine can make it."""
    if start.room is None:
        return False
    wanted = room.Room(**start.room)
    try:
        _enter_with_network(wanted, control, group)
    except room.NoRoom as problem:
        text = f"This machine can't make a room for the job ({problem})"
        if wanted.is_required:
            _say(control, "ERROR", f"{text}.")
            os._exit(1)
        _say(control, "WARNING", f"{text}, which can read and change other jobs.")
        return False
    return True


def _continue_guarded(group: ControlGroup) -> None:
    """Continue in a child. This process waits, and ends what the child leaves if it is killed.

    Until then it keeps the locks and the socket open, so that nobody takes the job for ended.
    """
    pid = os.fork()
    if pid == 0:
        become_subreaper()
        group.enter()
        return
    os.waitpid(pid, 0)
    _end_all(pid)
    group.remove()
    os._exit(0)


def _enter_with_network(wanted: room.Room, control: socket.socket, group: ControlGroup) -> None:
    """Enter the room, with the machine's network where it can have no other. Raises `NoRoom`."""
    try:
        room.enter(wanted, group)
    except room.NoRoom as problem:
        if wanted.network == network.HOST or wanted.is_required:
            raise
        room.enter(replace(wanted, network=network.HOST), group)
        text = f"This machine can't make a network for the job ({problem})"
        _say(control, "WARNING", f"{text}, which reaches what the machine reaches.")


def _say(control: socket.socket, level: str, text: str) -> None:
    """Add a line to the job's log."""
    with contextlib.suppress(OSError):
        control.sendall(encode(Message(time=time.time(), level=level, text=text)))


def _make_report(start: Start, control: socket.socket) -> None:
    """Create the report with a second driver. Its failure does not affect the result of the workflow."""
    # Its events do not belong to the workflow.
    with open(os.devnull, "wb") as discarded:
        driver = _start_driver(start, start.report_argv, discarded)
    exit_code, was_ended = _wait(driver, control, start.report_seconds)
    _end_all(driver)
    if exit_code or was_ended:
        limit = f"it was stopped, at the latest after {start.report_seconds:g} seconds"
        text = f"The report could not be created: {limit if was_ended else 'see snakemake.log'}."
        _say(control, "WARNING", text)


def _start_driver(start: Start, argv: Sequence[str], events: BinaryIO) -> int:
    # The supervisor ignores SIGTERM, so one that arrives before the driver handles it would be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        with contextlib.suppress(PermissionError):  # the child was faster, and has executed another program
            os.setpgid(pid, pid)
        return pid
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    die_with_parent(signal.SIGKILL)
    os.chdir(start.directory)
    os.environ.clear()
    os.environ.update(start.environment)
    from flows.snakemake_process import driver  # noqa: PLC0415 - imports Snakemake, which only the child needs

    driver.drive(list(argv), start.decisions, events)


def _wait(
    driver: int, control: socket.socket, seconds: float | None = None, cancel_seconds: float = 0.0
) -> tuple[int, bool]:
    """The driver's exit code, negative for a signal, and whether it was stopped early.

    It is stopped if the flow requests it, if the flow process is gone, and after `seconds`. It gets
    `cancel_seconds` to cancel what runs on a cluster.
    """
    alarm = alarm_on_child_exit()
    poll = select.poll()
    poll.register(alarm, select.POLLIN)
    poll.register(control, select.POLLIN)
    steps: list[Step] = [] if seconds is None else ending(time.monotonic() + seconds)
    begun = False  # whether it is being stopped
    while True:
        if (exit_code := _reap(driver)) is not None:
            return exit_code, begun
        while steps and time.monotonic() >= steps[0][0]:
            begun = True
            steps.pop(0)[1](driver)
        timeout = max(0.0, steps[0][0] - time.monotonic()) * 1000 + 1 if steps else None
        ready = {fd for fd, _ in poll.poll(timeout)}
        if alarm in ready:
            os.read(alarm, 4096)
        if control.fileno() in ready:
            # The word `terminate` and the end of the stream have the same meaning.
            with contextlib.suppress(ConnectionError):
                control.recv(len(TERMINATE))
            poll.unregister(control)
            begun = True
            steps = ending(time.monotonic(), cancel_seconds)


def alarm_on_child_exit() -> int:
    """A file descriptor that becomes readable when a child ends."""
    alarm, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler, the wake-up descriptor gets no byte
    return alarm


def _reap(driver: int) -> int | None:
    """Collect all children that have ended, including orphans. Returns the driver's exit code if it has."""
    exit_code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == driver:
                exit_code = os.waitstatus_to_exitcode(status)
    return exit_code


def _end_all(driver: int) -> None:
    """End all processes that the driver left behind, and wait until they are gone."""
    end = psutil.Process.terminate
    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            with contextlib.suppress(psutil.Error):
                end(process)
        psutil.wait_procs(descendants, timeout=0.2)
        _reap(driver)
        end = psutil.Process.kill


def _outlive_the_flow() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the supervisor ends with the flow process instead
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    become_subreaper()


def _redirect_output(log_path: str) -> None:
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(null)


def _read_line(control: socket.socket) -> bytes:
    """The first line; empty if the other side closed the socket without sending one."""
    line = bytearray()
    while not line.endswith(b"\n"):
        waiting = control.recv(65536, socket.MSG_PEEK)
        if not waiting:
            return b""
        # A `terminate` after the line stays in the socket.
        line += control.recv(waiting.find(b"\n") + 1 or len(waiting))
    return bytes(line)


if __name__ == "__main__":
    supervise(socket.socket(fileno=int(sys.argv[1])))
