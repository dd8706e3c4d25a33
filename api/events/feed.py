"""One feed for many followers: what was told is numbered and kept, so that nobody is told less.

A follower that comes back says up to which moment it knows. It is told of everything that
Prefect has *recorded* since, by Prefect's own times, with `MARGIN` to spare: more than once
perhaps, never not at all. So a moment is understood by every replica and after a restart.
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
"""How far the clocks of Prefect's database and of a facade may be apart."""

MOST_CHANGES = 10_000
"""Kept of each kind of event for followers that come later: a long log must not hide a rule job."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Up to when a follower knows everything: the id of a server-sent event."""

    at: datetime
    is_end: bool = False
    """Nothing more will come, and the follower was told all of it."""

    def __str__(self) -> str:
        return f"{int(self.at.timestamp() * 1000)}{'-end' if self.is_end else ''}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `ValueError` for anything that is not a moment of ours."""
        digits, dash, end = text.partition("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 14) or (dash and end != "end"):
            raise ValueError(f"'{text[:50]}' is not the id of an event")
        return cls(datetime.fromtimestamp(int(digits) / 1000, UTC), is_end=bool(dash))

    @property
    def earliest(self) -> datetime:
        """What was recorded before is known for certain."""
        return self.at - MARGIN


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened, as its followers are told."""

    event: str
    subject: UUID
    """The job, the rule job or the line. A newer change of it takes the place of an older one."""
    data: str
    """JSON."""
    recorded_at: datetime
    group: str = ""
    number: int = 0


FeedItem = Change | Moment
"""A follower is told changes, and after each round of them the moment that is reached."""


class Feed:
    """What happens, for as many as want to know."""

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
        """Tell followers that they know everything up to this moment."""
        async with self._news:
            self.moment = moment
            self._news.notify_all()

    async def follow(self, is_wanted: Callable[[Change], bool]) -> AsyncIterator[FeedItem]:
        """What of the past `is_wanted`; then whatever comes, until the end."""
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
        """What was kept after that number, oldest first."""
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
