"""Starts a part of the stack again when it has ended, and ends what an earlier stack has left."""

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deployments.processes import StackProcess

_LONGEST_PAUSE_SECONDS = 30.0
_STABLE_SECONDS = 60.0
"""A part that has run for so long is started at once when it ends."""

_SHOWN_AFTER = 3
"""So many ends in a row are no accident: the operator sees the end of the log."""

_END_SECONDS = 20.0
_SAME_START_SECONDS = 0.05


@dataclass
class Part:
    """A process of the stack that is replaced when it ends."""

    name: str
    title: str
    """Its name in messages."""
    start_process: Callable[[], StackProcess]
    stop_seconds: float
    process: StackProcess
    ends: int = 0
    """How often it has ended in a row, each time soon after its start."""
    due: float | None = None
    """When to start it again; None while it runs."""
    started: float = field(default_factory=time.monotonic)

    def replace(self) -> None:
        """Start a new process. The one before must have ended."""
        self.process = self.start_process()
        self.due = None
        self.started = time.monotonic()

    def stop(self) -> None:
        self.process.stop(self.stop_seconds)


class Supervision:
    """The parts of a stack. They run until their `stop`."""

    def __init__(self, records: Path, say: Callable[[str], None]) -> None:
        """`records` is a file that names the processes, for the next stack with this home directory."""
        self._records = records
        self._say = say
        self._parts: list[Part] = []

    def add(
        self, name: str, title: str, start_process: Callable[[], StackProcess], stop_seconds: float
    ) -> Part:
        part = Part(name, title, start_process, stop_seconds, start_process())
        self._parts.append(part)
        self._record()
        return part

    def check(self) -> None:
        """Raises `StackError` if a part has ended."""
        for part in self._parts:
            part.process.check()

    def restart(self, part: Part) -> None:
        """Stop a part, and start it again."""
        part.stop()
        part.replace()
        self._record()

    def supervise(self) -> None:
        """Start every part again that has ended and whose pause is over. Call it often.

        A part that ends again and again is started after 1, 2, 4 … seconds, at most every
        30 seconds: the reason may go away, as a full disk does.
        """
        now = time.monotonic()
        for part in self._parts:
            if part.due is None and part.process.has_ended:
                self._plan(part, now)
            if part.due is not None and now >= part.due:
                self._replace(part)

    def _plan(self, part: Part, now: float) -> None:
        is_stable = now - part.started > _STABLE_SECONDS
        part.ends = 1 if is_stable else part.ends + 1
        pause = 0.0 if part.ends == 1 else min(2.0 ** (part.ends - 2), _LONGEST_PAUSE_SECONDS)
        part.due = now + pause
        when = f"in {pause:g} s" if pause else "now"
        self._say(f"{part.title} {part.process.how_it_ended}. Starting it again {when}.")
        if part.ends >= _SHOWN_AFTER:
            with contextlib.suppress(OSError):
                self._say(f"It has ended {part.ends} times in a row. {part.process.last_words}")

    def _replace(self, part: Part) -> None:
        try:
            part.replace()
        except OSError as error:  # the disk may be full, or memory short
            part.due = time.monotonic() + _LONGEST_PAUSE_SECONDS
            self._say(
                f"{part.title} can't be started ({error}). Trying again in {_LONGEST_PAUSE_SECONDS:g} s."
            )
        self._record()

    def _record(self) -> None:
        found = {part.name: [part.process.pid, _start_of(part.process.pid)] for part in self._parts}
        with contextlib.suppress(OSError):  # the next stack would then wait for them to end by themselves
            partial = self._records.with_suffix(".partial")
            partial.write_text(json.dumps(found))
            partial.replace(self._records)  # a stack that starts meanwhile reads all of it


def end_recorded(records: Path) -> None:
    """End the processes that an earlier stack has recorded and left, and no others.

    A process is the recorded one if pid and time of start are the same. The kernel has asked it to end
    when its stack was killed. A worker is killed at once: its jobs continue, and the next worker finds
    them.
    """
    processes = {name: process for name, pid, start in _recorded(records) if (process := _same(pid, start))}
    for name, process in processes.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill() if name == "worker" else process.terminate()
    end_all(processes.values())


def end_all(processes: Iterable[psutil.Process]) -> None:
    """Wait until they have ended, and kill those that don't."""
    _, alive = psutil.wait_procs(list(processes), _END_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, _END_SECONDS)


def _recorded(records: Path) -> Iterable[tuple[str, int, float]]:
    try:
        found = json.loads(records.read_text())
    except (OSError, ValueError):
        return []
    return [(name, int(pid), float(start)) for name, (pid, start) in found.items()]


def _start_of(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def _same(pid: int, start: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - start) < _SAME_START_SECONDS else None
    except psutil.NoSuchProcess:
        return None
