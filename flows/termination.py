"""How a flow process is asked to end early: by a signal that sets a flag, never by an exception.

Prefect turns SIGTERM into an exception at whatever line the flow happens to be. A job would
then leave its rule jobs open. Here the signal only asks; the flow ends the engine, writes down
what became of every rule job, and returns.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.utilities import engine

CANCEL_SIGNAL = signal.SIGUSR1
"""What our worker sends: harmless before the flow has started and after it has ended."""


class Termination:
    """Whether the job was asked to end, and what to do then."""

    def __init__(self) -> None:
        self.is_requested = False
        self._terminate: Callable[[], None] | None = None

    def request(self, *_: object) -> None:
        self.is_requested = True
        if self._terminate is not None:
            self._terminate()

    @contextmanager
    def handled_by(self, terminate: Callable[[], None]) -> Iterator[None]:
        """Call `terminate` when the job is asked to end, at once if it already was."""
        self._terminate = terminate
        try:
            if self.is_requested:
                terminate()
            yield
        finally:
            self._terminate = None

    @contextmanager
    def by_sigterm(self) -> Iterator[None]:
        """Take SIGTERM as a request as well, as runners other than our worker send it.

        Prefect's runner kills a flow process whose handler is not the one that Prefect knows of
        (`commit_control_intent_and_ack` in `prefect.utilities.engine`), so it is told of this one.
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
"""Of this process: one flow process runs one job."""


def listen() -> None:
    """Take `CANCEL_SIGNAL` as a request from now on. Our worker's flow processes call it first."""
    signal.signal(CANCEL_SIGNAL, termination.request)
