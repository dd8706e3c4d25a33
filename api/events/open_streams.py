"""Counts the open event streams of each caller, and limits them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.auth.callers import Caller
from api.web.problems import TooManyStreams


class OpenStreams:
    """The open streams of all callers."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def check(self, caller: Caller) -> None:
        """Raises `TooManyStreams`. Requests at the same moment don't see each other."""
        if self._open[caller.name] >= self._most:
            raise TooManyStreams(
                f"'{caller.name}' has {self._most} open event streams, which is the limit.",
                "Close one of them, or follow all jobs with one stream: GET /jobs/events.",
            )

    @contextmanager
    def one_more(self, caller: Caller) -> Iterator[None]:
        self._open[caller.name] += 1
        try:
            yield
        finally:
            self._open[caller.name] -= 1
