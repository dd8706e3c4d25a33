"""Pages of log lines in the order in which they were written, also within one microsecond.

Prefect orders lines by time alone, and PostgreSQL lines of the same time as it likes, from
one query to the next. The chunks of one attempt's output do have the same time. So lines are
read from the time of the last one given, those of one time all together, and put in order
here. That holds for as many lines of the same microsecond as Prefect gives at once; of more,
some may be missed, but the walk still ends.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from prefect.client.schemas.objects import Log

from api.web.queries import MAX_LIMIT

ReadLogs = Callable[[datetime | None, int, int], Awaitable[Sequence[Log]]]
"""Lines by time, at a time or after it: from an offset on, at most so many."""


@dataclass(frozen=True, slots=True, order=True)
class LogKey:
    """The place of a line among all of a job's."""

    timestamp: datetime
    created: datetime
    """When Prefect took it: the lines of one batch one after the other."""
    id: UUID

    @classmethod
    def of(cls, log: Log) -> Self:
        return cls(log.timestamp, log.created or log.timestamp, log.id)

    @classmethod
    def first_of(cls, timestamp: datetime) -> Self:
        """Before every line of that time."""
        return cls(timestamp, datetime.min.replace(tzinfo=UTC), UUID(int=0))


async def next_logs(read: ReadLogs, after: LogKey | None, limit: int) -> tuple[list[Log], LogKey | None]:
    """At most the next `limit` lines, and the key to go on from; none if these were the last."""
    start = after.timestamp if after else None
    chunk = min(limit + 2, MAX_LIMIT)  # the one given last, and one more time than is given now
    known: dict[LogKey, Log] = {}
    offset = 0
    while True:
        rows = await read(start, offset, chunk)
        known |= {LogKey.of(log): log for log in rows}
        is_end = len(rows) < chunk
        fresh = [
            key
            for key in sorted(known)
            # The last time may have more lines than were read; they come with the next page.
            if (after is None or key > after) and (is_end or key.timestamp < rows[-1].timestamp)
        ]
        if fresh or is_end:
            break
        if rows[-1].timestamp != start:
            start, offset = rows[-1].timestamp, 0  # all before it is known, and was given
        elif chunk < MAX_LIMIT:
            chunk = MAX_LIMIT
        else:
            offset += chunk
    page = fresh[:limit]
    is_last = is_end and len(page) == len(fresh)
    return [known[key] for key in page], None if is_last else page[-1]
