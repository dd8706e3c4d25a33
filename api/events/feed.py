"""One feed of changes for many followers.

A follower that reconnects says up to which moment it has received events. It gets all changes that
Prefect *recorded* since then, by Prefect's own timestamps, minus `MARGIN`: some perhaps twice, but none is
lost. So every replica understands a moment, also after a restart.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from operator import attrgetter
from typing import Self
from uuid import UUID

MARGIN = timedelta(seconds=60)
"""How far the clocks of Prefect's database and of a facade may differ."""

MOST_CHANGES = 10_000
"""How many changes are kept for later followers, of each kind: a long log must not displace rule jobs."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The time up to which a follower has received everything: the id of a server-sent event."""

    at: datetime
    is_end: bool = False
    """The feed has ended, and the follower has received all of it."""

    def __str__(self) -> str:
        return f"{int(self.at.timestamp() * 1000)}{'-end' if self.is_end else ''}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `ValueError` for anything but the text of a moment."""
        digits, dash, end = text.partition("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 14) or (dash and end != "end"):
            raise ValueError(f"'{text[:50]}' is not the id of an event")
        return cls(datetime.fromtimestamp(int(digits) / 1000, UTC), is_end=bool(dash))

    @property
    def earliest(self) -> datetime:
        """Everything recorded before this time has certainly been received."""
        return self.at - MARGIN


@dataclass(frozen=True, slots=True)
class Change:
    """One change, as followers receive it."""

    event: str
    subject: UUID
    """The job, the rule job or the log line. A newer change of it replaces an older one."""
    data: str
    """JSON."""
    recorded_at: datetime
    group: str = ""
    number: int = 0


FeedItem = Change | Moment
"""A follower receives changes, and after each batch of them the moment that is reached."""


class Feed:
    """Changes for any number of followers."""

    def __init__(self) -> None:
        self.moment: Moment | None = None
        self._kept: dict[str, OrderedDict[UUID, Change]] = {}
        self._number = 0
        self._news = asyncio.Condition()

    def keep(self, change: Change) -> None:
        self._number += 1
        of_its_kind = self._kept.setdefault(change.event, OrderedDict())
        of_its_kind[change.subject] = replace(change, number=self._number)
        of_its_kind.move_to_end(change.subject)
        if len(of_its_kind) > MOST_CHANGES:
            of_its_kind.popitem(last=False)

    async def reach(self, moment: Moment) -> None:
        """Publish that all changes up to this moment are in the feed."""
        async with self._news:
            self.moment = moment
            self._news.notify_all()

    async def follow(self, is_wanted: Callable[[Change], bool]) -> AsyncIterator[FeedItem]:
        """Past changes that `is_wanted` selects, then all new ones, until the end."""
        moment = await self._next_after(None)
        news: Sequence[Change] = [change for change in self._after(0) if is_wanted(change)]
        while True:
            number = self._number
            for change in news:
                yield change
            yield moment
            if moment.is_end:
                return
            moment = await self._next_after(moment)
            news = self._after(number)

    def _after(self, number: int) -> Sequence[Change]:
        """Changes after that number, oldest first."""
        news = [
            change
            for of_its_kind in self._kept.values()
            for change in takewhile(lambda change: change.number > number, reversed(of_its_kind.values()))
        ]
        return sorted(news, key=attrgetter("number"))

    async def _next_after(self, known: Moment | None) -> Moment:
        async with self._news:
            await self._news.wait_for(lambda: self.moment is not known)
        assert self.moment is not None
        return self.moment
