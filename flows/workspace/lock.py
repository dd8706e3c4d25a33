"""A lock on a directory, held by a process.

The kernel releases it when the last process that has it open ends, however it ends. The alternatives
fail: a pid may be reused, a heartbeat may come late, and a killed process can't update a state.
"""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

LOCK_TIMEOUT_SECONDS = 10.0
"""How long to wait for another holder: a process may outlive its job for a moment, and `holder` takes
the lock for a moment, too."""


class DirectoryInUse(Exception):
    """Another process holds the lock."""


_taken_early: dict[Path, int] = {}
"""Descriptors of locks that this process has taken before the code that needs them runs."""


class DirectoryLock:
    """An exclusive `flock` on a file that contains its holder's pid."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = None

    @property
    def descriptors(self) -> list[int]:
        """The descriptor that holds the lock in every process that has it open; empty if it is not held."""
        return [] if self._descriptor is None else [self._descriptor]

    def hold(
        self, timeout_seconds: float = LOCK_TIMEOUT_SECONDS, is_stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Lock it until this process ends. Raises `DirectoryInUse` if another process keeps it."""
        if self._descriptor is None:
            self._descriptor = _taken_early.pop(self._file, None)
        if self._descriptor is not None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # Never closed: the kernel releases the lock when the process ends.
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + timeout_seconds
        while not _is_free(descriptor):
            if time.monotonic() > deadline or is_stopped():
                os.close(descriptor)
                raise DirectoryInUse(f"another process runs in {self._file.parent}")
            time.sleep(0.02)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor

    def hold_early(self) -> None:
        """Lock it for the next lock on this file in this process. Raises as `hold` does, and `OSError`."""
        self.hold()
        if self._descriptor is not None:
            _taken_early[self._file] = self._descriptor

    def holder(self) -> int | None:
        """The pid of the process that holds it; 0 if that has ended, None if there never was one."""
        try:
            descriptor = os.open(self._file, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            return 0 if _is_free(descriptor) else int(os.read(descriptor, 20) or b"0") or None
        finally:
            os.close(descriptor)


def _is_free(descriptor: int) -> bool:
    """Try to take the lock; whether that worked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
