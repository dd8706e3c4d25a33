"""Ends a flow process early, by a signal that sets a flag and never by an exception.

Prefect turns SIGTERM into an exception at whatever line the flow is executing. A job would then leave
its rule jobs open. Here the signal is only a request: the flow ends the engine, records the final state
of every rule job, and returns.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.utilities import engine

CANCEL_SIGNAL = signal.SIGUSR1
"""The signal of our worker. It is harmless before the flow starts and after it ends."""


class Termination:
    """Whether the job was requested to end, and what to do then."""

    def __init__(self) -> None:
        self.is_requested = False
        self._terminate: Callable[[], None] | None = None

    def request(self, *_: object) -> None:
        self.is_requested = True
        if self._terminate is not None:
            self._terminate()

    @contextmanager
    def handled_by(self, terminate: Callable[[], None]) -> Iterator[None]:
        """Call `terminate` when the job is requested to end, or at once if it already was."""
        self._terminate = terminate
        try:
            if self.is_requested:
                terminate()
            yield
        finally:
            self._terminate = None

    @contextmanager
    def by_sigterm(self) -> Iterator[None]:
        """Treat SIGTERM as a request, too: other runners than our worker send it.

        Prefect's runner kills a flow process whose handler is not the one that Prefect knows of
        (`commit_control_intent_and_ack` in `prefect.utilities.engine`), so this registers ours there.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handler: Any = self.request
        previous = signal.signal(signal.SIGTERM, handler)
        known = engine._prefect_sigterm_handler
        engine._prefect_sigterm_handler = handler
        try:
            yield
        finally:
            engine._prefect_sigterm_handler = known
            signal.signal(signal.SIGTERM, previous)


termination = Termination()
"""The termination of this process: a flow process runs one job."""


def listen() -> None:
    """Treat `CANCEL_SIGNAL` as a request from now on. Flow processes of our worker call this first."""
    signal.signal(CANCEL_SIGNAL, termination.request)
