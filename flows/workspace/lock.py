"""A lock on a directory that is held by a process and nothing else.

The kernel releases it when the last process that has it open ends, however it ends: a pid may be
reused, a heartbeat comes late, and a state is not updated by a process that was killed.
"""

import fcntl
import os
import time
from pathlib import Path

LEAVING_SECONDS = 10.0
"""How long a holder is waited for: a process lives on for a moment when its job has ended already, and
asking for the holder locks for a moment, too."""


class DirectoryInUse(Exception):
    """Another process holds the lock."""


class DirectoryLock:
    """An exclusive lock, by `flock` on a file that names its holder's pid."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = None

    @property
    def descriptors(self) -> list[int]:
        """What keeps it held as long as one process has it open; empty while it is not held."""
        return [] if self._descriptor is None else [self._descriptor]

    def hold(self) -> None:
        """Hold it until the process ends. Raises `DirectoryInUse` if another process has it."""
        if self._descriptor is not None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # Never closed: the kernel releases the lock when the process is gone.
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + LEAVING_SECONDS
        while not _is_free(descriptor):
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise DirectoryInUse(f"another process runs in {self._file.parent}")
            time.sleep(0.02)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor

    def holder(self) -> int | None:
        """The pid of the process that holds it; 0 if it is gone, None if there was none."""
        try:
            descriptor = os.open(self._file, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            return 0 if _is_free(descriptor) else int(os.read(descriptor, 20) or b"0") or None
        finally:
            os.close(descriptor)


def _is_free(descriptor: int) -> bool:
    """Whether the lock was free; it is held now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
