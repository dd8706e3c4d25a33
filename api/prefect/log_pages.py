"""Pages of log lines in the order in which they were written, also within one microsecond.

Prefect sorts lines by time alone, and the order of lines with the same time may differ between queries.
The chunks of one attempt's output do have the same time. So each page reads from the time of the last
returned line, all lines of one time together, and sorts them here. This works for as many lines of one
microsecond as Prefect returns at once; of more, some may be missed, but the pages still come to an end.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from prefect.client.schemas.objects import Log

from api.web.queries import MAX_LIMIT

ReadLogs = Callable[[datetime | None, int, int], Awaitable[Sequence[Log]]]
"""Arguments: start time, offset, limit. Returns lines from that time on, sorted by time."""


@dataclass(frozen=True, slots=True, order=True)
class LogKey:
    """The position of a line in the log of a job."""

    timestamp: datetime
    created: datetime
    """When Prefect stored it: lines of one batch in their order."""
    id: UUID

    @classmethod
    def of(cls, log: Log) -> Self:
        return cls(log.timestamp, log.created or log.timestamp, log.id)

    @classmethod
    def first_of(cls, timestamp: datetime) -> Self:
        """A key before every line of that time."""
        return cls(timestamp, datetime.min.replace(tzinfo=UTC), UUID(int=0))


async def next_logs(read: ReadLogs, after: LogKey | None, limit: int) -> tuple[list[Log], LogKey | None]:
    """At most the next `limit` lines, and the key to continue from; none if these were the last."""
    start = after.timestamp if after else None
    chunk = min(limit + 2, MAX_LIMIT)  # the last returned line, and one that shows whether more follow
    known: dict[LogKey, Log] = {}
    offset = 0
    while True:
        rows = await read(start, offset, chunk)
        known |= {LogKey.of(log): log for log in rows}
        is_end = len(rows) < chunk
        fresh = [
            key
            for key in sorted(known)
            # There may be more lines of the last time; the next page returns them.
            if (after is None or key > after) and (is_end or key.timestamp < rows[-1].timestamp)
        ]
        if fresh or is_end:
            break
        if rows[-1].timestamp != start:
            start, offset = rows[-1].timestamp, 0  # all lines before it have been read
        elif chunk < MAX_LIMIT:
            chunk = MAX_LIMIT
        else:
            offset += chunk
    page = fresh[:limit]
    is_last = is_end and len(page) == len(fresh)
    return [known[key] for key in page], None if is_last else page[-1]
