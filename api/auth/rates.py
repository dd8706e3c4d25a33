"""Rate limits: a token bucket for each caller.

Buckets are in memory, so each replica allows the full rate. The library `limits` has windows only:
fixed windows allow twice the rate where two meet, and sliding ones store every request.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_BUCKETS = 10_000
"""A bucket that is dropped counts as full, so a caller with so many addresses gains a burst."""


@dataclass(slots=True)
class _Bucket:
    level: float
    filled_at: float


class Rates:
    """One bucket for each name."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def seconds_to_wait(self, name: str) -> float:
        """0 if `name` may send a request now, which is then counted; else how long it must wait."""
        now = self._clock()
        bucket = self._buckets.pop(name, None) or _Bucket(self._burst, now)
        bucket.level = min(self._burst, bucket.level + (now - bucket.filled_at) * self._per_second)
        bucket.filled_at = now
        self._buckets[name] = bucket
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        if bucket.level >= 1:
            bucket.level -= 1
            return 0.0
        return (1 - bucket.level) / self._per_second
