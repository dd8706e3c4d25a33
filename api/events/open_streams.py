"""How many event streams each caller has open, and may have."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.auth.callers import Caller
from api.web.problems import TooManyStreams


class OpenStreams:
    """How many streams each caller has open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def check(self, caller: Caller) -> None:
        """Raises `TooManyStreams`. Those that ask at the same moment don't see each other."""
        if self._open[caller.name] >= self._most:
            raise TooManyStreams(
                f"'{caller.name}' follows {self._most} streams of events, and may follow no more.",
                "Close one of them, or follow all jobs by one stream: GET /jobs/events.",
            )

    @contextmanager
    def one_more(self, caller: Caller) -> Iterator[None]:
        self._open[caller.name] += 1
        try:
            yield
        finally:
            self._open[caller.name] -= 1
