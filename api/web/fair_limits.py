"""Limits what runs at once so that nobody takes all places: in all, and for each name."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.to_thread

Result = TypeVar("Result")


class FairLimit:
    """At most `total` places, of which one name has at most `each`. Waiting is in order."""

    def __init__(self, total: int, each: int) -> None:
        self._total = anyio.CapacityLimiter(total)
        self._threads = anyio.CapacityLimiter(total)
        self._each = each
        self._own: dict[str, anyio.CapacityLimiter] = {}
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def place(self, name: str) -> AsyncIterator[None]:
        """Waits for a place, and holds it in this context."""
        own = self._own.setdefault(name, anyio.CapacityLimiter(self._each))
        self._users[name] += 1
        try:
            async with own, self._total:
                yield
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name], self._own[name]

    async def in_thread(self, name: str, function: Callable[..., Result], *arguments: object) -> Result:
        """What the function returns, which runs in a thread with a place."""
        async with self.place(name):
            # Threads of its own: waiting must not hold those that everything else needs.
            return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)
