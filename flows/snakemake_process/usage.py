"""Measures CPU time and peak memory of the commands of an attempt at a rule job.

CPU time comes from the kernel (`wait4`). It includes the command and all its descendants that were
waited for, but not processes that a command leaves running.

Peak memory is that of the largest single process (`ru_maxrss`); processes that run in parallel are
not added up. The kernel starts that value with the size of the process that forked (`exec_mmap` in
fs/exec.c inherits its high-water mark), which is Snakemake's. So `ru_maxrss` only counts if it is
larger than Snakemake. For smaller commands, the thread that waits for them reads /proc while they
run, at growing intervals: a high-water mark never falls, so one late reading is enough. A command
that is smaller than Snakemake and ends before the first reading has no value.

This does not use psutil, which walks the whole of /proc at each reading, nor cgroups, which need
permissions that containers and laptops do not give.
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

_FIRST_READING_SECONDS = 0.02
"""A command that only touches a file has ended by then, and needs no reading."""
_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(slots=True)
class Usage:
    """The usage of the commands of one attempt so far; None without a command or without a value."""

    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None

    def add_cpu(self, seconds: float) -> None:
        self.cpu_seconds = round(
            (self.cpu_seconds or 0.0) + seconds, 6
        )  # microseconds, the kernel's resolution

    def see_memory(self, peak_bytes: int) -> None:
        if peak_bytes > 0:
            self.peak_memory_bytes = max(self.peak_memory_bytes or 0, peak_bytes)


class MeasuredPopen(subprocess.Popen[Any]):
    """A command that adds its usage to a `Usage` when it is waited for."""

    def __init__(self, usage: Usage, *args: Any, **kwargs: Any) -> None:
        self._usage = usage
        super().__init__(*args, **kwargs)
        self._floor = _size_of_this_process()

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """Overrides how `subprocess` collects an ended process, under its lock (CPython's subprocess.py)."""
        if wait_flags == 0:
            _watch_until_ended(self.pid, self._usage)
        try:
            pid, status, taken = os.wait4(self.pid, wait_flags)
        except ChildProcessError:
            # As in `subprocess`: other code has collected the process.
            return self.pid, 0
        if pid == self.pid:
            self._usage.add_cpu(taken.ru_utime + taken.ru_stime)
            peak = taken.ru_maxrss * _MAXRSS_BYTES
            if peak > self._floor:
                self._usage.see_memory(peak)
        return pid, status


def _size_of_this_process() -> int:
    """The peak memory of this process, which a process forked now inherits."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES


def _watch_until_ended(pid: int, usage: Usage) -> None:
    """Record the memory of the process and its descendants until it ends."""
    if sys.platform != "linux":
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return  # a kernel before 5.3, or out of descriptors: the attempt works without it
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        pause = _FIRST_READING_SECONDS
        while not poll.poll(pause * 1000):
            for member in _tree(pid):
                usage.see_memory(_high_water_mark(member))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    finally:
        os.close(descriptor)


def _tree(pid: int) -> Iterator[int]:
    """The process and those of its descendants that still run."""
    yield pid
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in _read(f"/proc/{pid}/task/{thread}/children").split():
                yield from _tree(int(child))


def _high_water_mark(pid: int) -> int:
    """The peak memory of the process (`VmHWM`), in bytes; 0 if it has ended."""
    _, _, rest = _read(f"/proc/{pid}/status").partition(b"VmHWM:")
    words = rest.split(maxsplit=1)
    return int(words[0]) * _KIB if words else 0


def _read(path: str) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""
