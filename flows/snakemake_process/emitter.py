"""Sends all events of Snakemake's process.

The driver (or the logger plugin, under a plain `snakemake`) opens the emitter, and the two plugins
write to it. While it is closed, it drops events, and the plugins behave like Snakemake's own.
"""

import os
import threading
from typing import BinaryIO

from flows.snakemake_process.events import WorkflowEvent, encode


class Emitter:
    """Writes events as lines. Thread-safe."""

    def __init__(self) -> None:
        self._stream: BinaryIO | None = None
        self._directory: str | None = None
        self._lock = threading.Lock()

    def open(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._directory = os.getcwd()

    @property
    def directory(self) -> str:
        """What paths in events are relative to: the working directory of the start, before `--directory`."""
        return self._directory or os.getcwd()

    @property
    def is_open(self) -> bool:
        return self._stream is not None

    def emit(self, event: WorkflowEvent) -> None:
        if self._stream is None:
            return
        line = encode(event)
        with self._lock:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (BrokenPipeError, ConnectionResetError):
                # The flow process is gone. The supervisor will end this process; until then, the workflow
                # must not fail because of it.
                self._stream = None


emitter = Emitter()
