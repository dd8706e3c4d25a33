"""Reports what a workflow prints outside of its rule jobs as messages of the job's log.

Prints of the Snakefile, of its handlers (`onstart`, …) and of commands that these run with `shell` go to
Snakemake's own output, as without the service, and are reported line by line. What Snakemake's logger
writes there is not reported a second time.
"""

import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import Message

_LONGEST_LINE = 10_000
_LAST_LINES_SECONDS = 1.0
"""A process in the background may keep the output of a command open for as long as it runs."""

_HANDLERS = ("ColorizingTextHandler", "ColorizingStreamHandler")
"""Snakemake's handler for its own messages, since 9.0 and before."""

_readers: list[threading.Thread] = []


class PrintedStream:
    """A text stream that also reports what is written to it, line by line."""

    def __init__(self, stream: TextIO) -> None:
        self.unreported = stream
        self._line = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        written = self.unreported.write(text)
        with self._lock:
            *lines, self._line = (self._line + text).split("\n")
            if len(self._line) > _LONGEST_LINE:
                lines, self._line = [*lines, self._line], ""
        for line in lines:
            _report(line)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def end_line(self) -> None:
        """Report a last line that has no end."""
        with self._lock:
            line, self._line = self._line, ""
        _report(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unreported, name)


def install() -> None:
    """Report what this process prints from now on. Call it once."""
    sys.stdout, sys.stderr = PrintedStream(sys.stdout), PrintedStream(sys.stderr)
    logging: Any = importlib.import_module("snakemake.logging")
    for name in _HANDLERS:
        if (handler := getattr(logging, name, None)) is not None:
            _write_unreported(handler)


def finish() -> None:
    """Report what is left at the end of the process."""
    for reader in _readers:
        reader.join(_LAST_LINES_SECONDS)
    for stream in (sys.stdout, sys.stderr):
        if callable(end_line := getattr(stream, "end_line", None)):
            end_line()


@contextmanager
def output_of_command() -> Iterator[int]:
    """A file descriptor for the output of a command that the Snakefile runs itself."""
    read_end, write_end = os.pipe()
    _readers.append(threading.Thread(target=_forward, args=(read_end,), daemon=True))
    _readers[-1].start()
    try:
        yield write_end
    finally:
        os.close(write_end)


def _forward(read_end: int) -> None:
    with open(read_end, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            sys.stderr.write(line)
            sys.stderr.flush()


def _write_unreported(handler: Any) -> None:
    initialize = handler.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - replaces it
        initialize(self, *args, **kwargs)
        while (stream := getattr(self.stream, "unreported", None)) is not None:
            self.stream = stream

    handler.__init__ = __init__


def _report(line: str) -> None:
    if line.strip():
        emitter.emit(Message(time=time.time(), level="INFO", text=line[:_LONGEST_LINE]))
