"""What the commands of an attempt at a rule job take of the machine: CPU time and peak memory.

CPU time is the kernel's own count (`wait4`): of the command and of all its descendants that were
waited for. What a command leaves behind, running on its own, is not in it.

Peak memory is that of the largest single process, as the kernel counts `ru_maxrss`; processes
that run side by side are not added up. The kernel begins that count with the size of the process
that forked (`exec_mmap` in fs/exec.c takes over its high-water mark), which is Snakemake's, so
`ru_maxrss` is only believed where it is larger than Snakemake. Smaller commands are looked at
in /proc while they run, at growing intervals, by the thread that waits for them: a high-water
mark never falls, so one late look is enough. What is smaller than Snakemake and gone before the
first look has no figure.

Not with psutil, which walks the whole of /proc at each look, nor with cgroups, which need rights
that containers and laptops do not give.
"""

import os
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_KIB = 1024
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else _KIB
"""The unit of `ru_maxrss` (getrusage(2))."""

_FIRST_LOOK_SECONDS = 0.02
"""A command that only touches a file is gone by then, and costs no look."""
_LATER_LOOK_SECONDS = 5.0


@dataclass(slots=True)
class Usage:
    """What the commands of one attempt have taken so far; None while there was none, or is no figure."""

    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None

    def add_cpu(self, seconds: float) -> None:
        self.cpu_seconds = round((self.cpu_seconds or 0.0) + seconds, 6)  # microseconds, as the kernel tells

    def see_memory(self, peak_bytes: int) -> None:
        if peak_bytes > 0:
            self.peak_memory_bytes = max(self.peak_memory_bytes or 0, peak_bytes)


class MeasuredPopen(subprocess.Popen[Any]):
    """A command whose usage is added to a `Usage` when it is waited for."""

    def __init__(self, usage: Usage, *args: Any, **kwargs: Any) -> None:
        self._usage = usage
        super().__init__(*args, **kwargs)
        self._floor = _size_of_this_process()

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """How `subprocess` collects the ended process, holding its lock (CPython's subprocess.py)."""
        if wait_flags == 0:
            _look_until_ended(self.pid, self._usage)
        try:
            pid, status, taken = os.wait4(self.pid, wait_flags)
        except ChildProcessError:
            # As `subprocess` has it: someone else has collected it.
            return self.pid, 0
        if pid == self.pid:
            self._usage.add_cpu(taken.ru_utime + taken.ru_stime)
            peak = taken.ru_maxrss * _MAXRSS_BYTES
            if peak > self._floor:
                self._usage.see_memory(peak)
        return pid, status


def _size_of_this_process() -> int:
    """The largest that a process forked until now may seem to have been from its start."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES


def _look_until_ended(pid: int, usage: Usage) -> None:
    """Come back when the process has ended, having seen the size of it and its descendants meanwhile."""
    if sys.platform != "linux":
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return  # a kernel before 5.3, or out of descriptors: the attempt does not depend on it
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        pause = _FIRST_LOOK_SECONDS
        while not poll.poll(pause * 1000):
            for member in _tree(pid):
                usage.see_memory(_high_water_mark(member))
            pause = min(2 * pause, _LATER_LOOK_SECONDS)
    finally:
        os.close(descriptor)


def _tree(pid: int) -> Iterator[int]:
    """The process and its descendants, as far as they are there."""
    yield pid
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in _read(f"/proc/{pid}/task/{thread}/children").split():
                yield from _tree(int(child))


def _high_water_mark(pid: int) -> int:
    """The most memory that the process has held (`VmHWM`), in bytes; 0 if it is gone."""
    _, _, rest = _read(f"/proc/{pid}/status").partition(b"VmHWM:")
    words = rest.split(maxsplit=1)
    return int(words[0]) * _KIB if words else 0


def _read(path: str) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""
