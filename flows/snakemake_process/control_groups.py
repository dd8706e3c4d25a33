"""Limits what a job takes as a whole, memory and processes, by a control group of Linux (cgroups(7)).

Limits of setrlimit(2) hold for each process (`flows.snakemake_process.limits`). A control group can be made
where the worker may write: as root in the first version, and in the second below a directory that was
delegated to it, in which the worker has a group of its own beside those of jobs (systemd's `Delegate=` with
`DelegateSubgroup=`). Elsewhere a job has none.

A group is removed when its job has ended. If nobody could, because the supervisor was killed, the next job
removes it.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

MEMORY, PROCESSES = "memory", "pids"
_LIMITS = {MEMORY: "RLIMIT_DATA", PROCESSES: "RLIMIT_NPROC"}
"""The limit of each controller, by its name in getrlimit(2)."""

_SECOND = "second version"
_MEBIBYTE = 1 << 20
_PREFIX = "prefect-snakemake-"
_MOST_TRIES = 5
_REMOVAL_SECONDS = 2.0
_FILES = {
    (MEMORY, False): ("memory.limit_in_bytes", "memory.oom_control", "oom_kill"),
    (PROCESSES, False): ("pids.max", "pids.events", "max"),
    (MEMORY, True): ("memory.max", "memory.events", "oom_kill"),
    (PROCESSES, True): ("pids.max", "pids.events", "max"),
}
"""By controller and whether it is the second version: where the limit is, and what counts its overruns."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The group of one controller."""

    controller: str
    directory: Path
    is_second: bool
    limit: int

    def overruns(self) -> int:
        _, events, name = _FILES[self.controller, self.is_second]
        with suppress(OSError, ValueError):
            for line in (self.directory / events).read_text().splitlines():
                if line.startswith(f"{name} "):
                    return int(line.split()[1])
        return 0

    def enter(self) -> None:
        """Raises `OSError`."""
        file, _, _ = _FILES[self.controller, self.is_second]
        for last in (False,) * (_MOST_TRIES - 1) + (True,):
            try:
                self.directory.mkdir(exist_ok=True)
                (self.directory / file).write_text(str(self.limit))
                (self.directory / "cgroup.procs").write_text("0")
            except FileNotFoundError:  # another job took it for one that was left
                if last:
                    raise
            else:
                return


class ControlGroup:
    """The control group of one job."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        """Nothing is made yet. `limits` are those of getrlimit(2)."""
        name = f"{_PREFIX}{uuid4().hex[:16]}"
        self._parts = [
            _Part(controller, base / name, is_second, limits[_LIMITS[controller]])
            for controller, base, is_second in _bases()
            if limits.get(_LIMITS[controller], _machine_memory()) < _machine_memory()
        ]

    def enter(self) -> None:
        """Move this process into it, and so all that it will start."""
        for part in self._parts:
            _remove_left(part.directory.parent)
            with suppress(OSError):  # the machine offers it, and does not keep it
                part.enter()

    def remove(self) -> None:
        """Its processes have ended, or are about to; this process leaves it."""
        for directory in dict.fromkeys(part.directory for part in self._parts):
            with suppress(OSError):
                if str(os.getpid()) in (directory / "cgroup.procs").read_text().split():
                    _leave(directory)
            deadline = time.monotonic() + _REMOVAL_SECONDS
            while directory.exists() and time.monotonic() < deadline:
                with suppress(OSError):
                    directory.rmdir()
                    break
                time.sleep(0.01)

    def overruns(self) -> dict[str, int]:
        """How often the job was over a limit, by controller."""
        return {part.controller: part.overruns() for part in self._parts}

    def excess(self, before: Mapping[str, int]) -> str:
        """Which limit the job has exceeded since `overruns()` was `before`; empty if none."""
        for part in self._parts:
            if part.overruns() > before.get(part.controller, 0):
                if part.controller == MEMORY:
                    return f"The job exceeded its limit of {part.limit // _MEBIBYTE} MiB of memory."
                return f"The job exceeded its limit of {part.limit} processes and threads."
        return ""


current: ControlGroup | None = None
"""That of this process, for the executor plugin; the supervisor sets it before it forks."""


def _bases() -> Iterator[tuple[str, Path, bool]]:
    """Where groups can be made: the controller, the directory, and whether it is the second version."""
    try:
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        mounts = list(_mounts())
    except OSError:
        return
    for _, controllers, path in own:
        for point, root, names in mounts:
            if names == {_SECOND} if not controllers else set(controllers.split(",")) <= names:
                place = Path(point) / os.path.relpath(path, root)
                yield from _bases_at(place, set(controllers.split(",")) if controllers else None)


def _bases_at(place: Path, controllers: set[str] | None) -> Iterator[tuple[str, Path, bool]]:
    if controllers is not None:
        found = controllers & _LIMITS.keys()
    else:
        place = place.parent
        found = _delegated(place)
    if found and os.access(place, os.W_OK):
        for controller in sorted(found):
            yield controller, place, controllers is None


def _delegated(directory: Path) -> set[str]:
    """The controllers of a directory of the second version that was delegated to this user."""
    switch = directory / "cgroup.subtree_control"
    if directory.suffix == ".slice" or not os.access(directory / "cgroup.procs", os.W_OK):
        return set()
    with suppress(OSError):
        offered = set((directory / "cgroup.controllers").read_text().split()) & _LIMITS.keys()
        switch.write_text(" ".join(f"+{name}" for name in sorted(offered)))
        return set(switch.read_text().split()) & _LIMITS.keys()
    return set()


def _mounts() -> Iterator[tuple[str, str, set[str]]]:
    """Of each hierarchy: where it is, its root, and its controllers."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            _, _, _, root, point, *_ = before.split()
            yield point, root, {_SECOND} if kind == "cgroup2" else set(options.split(","))


def _machine_memory() -> int:
    """More than that limits nothing; and a group for memory costs the kernel more than its directory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _leave(directory: Path) -> None:
    """Back to where this process came from."""
    siblings = (each for each in directory.parent.iterdir() if not each.name.startswith(_PREFIX))
    for place in (directory.parent, *(each for each in siblings if (each / "cgroup.procs").exists())):
        with suppress(OSError):
            (place / "cgroup.procs").write_text("0")
            return


def _remove_left(base: Path) -> None:
    """Remove what jobs have left whose supervisor was killed: only what nobody is in can be removed."""
    for directory in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            directory.rmdir()
