"""Ends the driver's process as a plain Snakemake ends: after the threads and exit handlers of the workflow.

The driver is forked from a process that has exit handlers of its own, which must not run in it.
"""

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

from flows.snakemake_process import printing
from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import Message

EXIT_SECONDS = 600.0
"""Time for threads that go on when the workflow has ended; without a limit, one could keep the job open."""

_handlers: Any = atexit  # two of its functions are undocumented
_threads: Any = threading


def begin() -> None:
    """Forget the exit handlers of the parent, except what Python itself does at the end of a process."""
    _handlers._clear()
    atexit.register(logging.shutdown)
    if (multiprocessing := sys.modules.get("multiprocessing.util")) is not None:
        atexit.register(multiprocessing._exit_function)


def leave(exit_code: int) -> NoReturn:
    """Wait for the workflow's threads, run its exit handlers, and exit the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # Snakemake's own handlers only stop its scheduler
    limit = threading.Timer(EXIT_SECONDS, _give_up, [exit_code])
    limit.daemon = True
    limit.start()
    with contextlib.suppress(Exception):
        _threads._shutdown()
        _handlers._run_exitfuncs()
    _exit(exit_code)


def _give_up(exit_code: int) -> None:
    text = f"Threads of the workflow still run {EXIT_SECONDS:g} seconds after its end; they are ended."
    emitter.emit(Message(time=time.time(), level="WARNING", text=text))
    _exit(exit_code)


def _exit(exit_code: int) -> NoReturn:
    with contextlib.suppress(Exception):
        printing.finish()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(exit_code)
