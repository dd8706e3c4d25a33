"""Starts Snakemake, and sees to it that nothing of it outlives its job.

The keeper stands between the flow's process and Snakemake's:

    flow process ──socket──> keeper ──fork──> driver (Snakemake) ──> rule jobs ──> their children

- It is the *subreaper* of everything below it: a process whose parent dies becomes the
  keeper's child, so even one that has left the session is found and ended (prctl(2),
  PR_SET_CHILD_SUBREAPER; on systems without it, the driver's process group is ended).
- When the flow asks, or when the flow's process is gone (end of file on the socket), it ends
  them all: SIGTERM to the driver's process group, so that Snakemake removes the outputs of
  running rule jobs, then SIGKILL to whatever is left.
- When the driver has ended, it ends what the driver left behind and says `EngineExited`.

The socket takes one JSON line (`Start`), then the word `terminate` at most; the other way go
event lines, written by the driver. Run as a program (`python -m flows.inside.keeper FD`) the
keeper imports only the standard library and psutil; Snakemake is imported in the driver.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import NoReturn

import psutil

from flows.events import EngineExited, encode

GRACE_SECONDS = 4.0
"""Between SIGTERM and SIGKILL for rule jobs."""

CLEAN_UP_SECONDS = 3.0
"""Then for Snakemake, which needs 0.7 s to remove outputs and its lock."""

TERMINATE = b"terminate\n"
_TERMINATE_SECONDS = (0.0, 0.5, 1.5)

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Start:
    """What the flow wants to be run."""

    argv: tuple[str, ...]
    """Arguments of `snakemake`."""
    directory: str
    """Working directory: the job's own."""
    log_path: str
    """Takes stdout and stderr of Snakemake."""
    environment: Mapping[str, str]

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Start":
        return cls(**json.loads(line))


def keep(control: socket.socket) -> NoReturn:
    """Wait for a `Start` on `control`, see its execution to the end, and leave the process."""
    _become_subreaper()
    line = _read_line(control)
    if not line:
        os._exit(0)  # the flow had no use for us
    driver = _start_driver(Start.from_line(line), control)
    exit_code = _wait(driver, control)
    _end_all(driver)
    with contextlib.suppress(OSError):
        control.sendall(encode(EngineExited(time=time.time(), exit_code=exit_code)))
    os._exit(0)


def _start_driver(start: Start, control: socket.socket) -> int:
    # The keeper ignores SIGTERM. Until the driver does not, one that comes must wait, not be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        with contextlib.suppress(PermissionError):  # the child did it first and has become another program
            os.setpgid(pid, pid)
        return pid
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _die_with_parent()
    _redirect_output(start.log_path)
    os.chdir(start.directory)
    os.environ.clear()
    os.environ.update(start.environment)
    from flows.inside import driver  # noqa: PLC0415 - leads to Snakemake; only the child needs it

    driver.drive(list(start.argv), control.makefile("wb"))


def _wait(driver: int, control: socket.socket) -> int:
    """The driver's exit code, negative for a signal; ends the driver if the flow wants or is gone."""
    alarm = alarm_on_child_exit()
    poll = select.poll()
    poll.register(alarm, select.POLLIN)
    poll.register(control, select.POLLIN)
    endings: list[tuple[float, Callable[[int], None]]] = []
    while True:
        if (exit_code := _reap(driver)) is not None:
            return exit_code
        while endings and time.monotonic() >= endings[0][0]:
            endings.pop(0)[1](driver)
        timeout = max(0.0, endings[0][0] - time.monotonic()) * 1000 + 1 if endings else None
        ready = {fd for fd, _ in poll.poll(timeout)}
        if alarm in ready:
            os.read(alarm, 4096)
        if control.fileno() in ready:
            # Both the word `terminate` and the end of the stream mean the same.
            with contextlib.suppress(ConnectionError):
                control.recv(len(TERMINATE))
            poll.unregister(control)
            now = time.monotonic()
            endings = [
                # Between a fork and its exec a signal is lost: hence more than once.
                *((now + seconds, _terminate_group) for seconds in _TERMINATE_SECONDS),
                (now + GRACE_SECONDS, _kill_below),
                (now + GRACE_SECONDS + CLEAN_UP_SECONDS, _kill),
            ]


def alarm_on_child_exit() -> int:
    """A file descriptor that becomes readable when a child ends."""
    alarm, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only with a handler does the wake-up fd get a byte
    return alarm


def _terminate_group(driver: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(driver, signal.SIGTERM)


def _kill_below(driver: int) -> None:
    """Kill what Snakemake has started, so that Snakemake itself can still clean up."""
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()


def _kill(driver: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(driver, signal.SIGKILL)


def _reap(driver: int) -> int | None:
    """Collect every child that has ended (orphans too); the driver's exit code if it is among them."""
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
    """End what the driver has left behind, and come back only when nothing lives any more."""
    end = psutil.Process.terminate
    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            with contextlib.suppress(psutil.Error):
                end(process)
        psutil.wait_procs(descendants, timeout=0.2)
        _reap(driver)
        end = psutil.Process.kill


def _become_subreaper() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the flow's end is what ends the keeper
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _redirect_output(log_path: str) -> None:
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(null)


def _read_line(control: socket.socket) -> bytes:
    """The first line; empty if the other side closed without a word."""
    line = bytearray()
    while not line.endswith(b"\n"):
        waiting = control.recv(65536, socket.MSG_PEEK)
        if not waiting:
            return b""
        # What follows the line, a `terminate`, is left for later.
        line += control.recv(waiting.find(b"\n") + 1 or len(waiting))
    return bytes(line)


if __name__ == "__main__":
    keep(socket.socket(fileno=int(sys.argv[1])))
