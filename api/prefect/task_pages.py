"""Pages of a job's rule jobs that neither repeat nor skip one, although Prefect only has offsets.

The task runs of a job all have about the same start time, Prefect can't filter them by id, and the order
of ties may differ between queries. The one total order that Prefect offers is `ID_DESC` with an offset.
So a page begins after the id of the last returned rule job; its row is only a hint where to look:

- Rows added above it push the page down: they are skipped by their ids.
- Rows above it that no longer match the filter (a rule job that has stopped running) pull the page up:
  the row at the hint is then past the id, and the search steps back.

A page ends early where Prefect's filter lets through too many rows that don't match (skipped rule jobs
among the completed ones): reading a thousand rows takes about a second.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from prefect.client.schemas.objects import TaskRun

from api.web.queries import MAX_LIMIT

READ_AT_MOST = 1_000

ReadRows = Callable[[int, int], Awaitable[Sequence[TaskRun]]]
"""Arguments: first row, limit. Returns task runs sorted by `ID_DESC`."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A returned task run, and the row in which it was."""

    id: UUID
    row: int


async def next_task_runs(
    read: ReadRows, after: Mark | None, limit: int, is_wanted: Callable[[TaskRun], bool]
) -> tuple[list[TaskRun], Mark | None]:
    """At most the next `limit` wanted task runs, and the mark to continue from; none after the last."""
    chunk = min(limit + 2, MAX_LIMIT)  # the marked one, and one that shows whether more follow
    stride = chunk
    found: list[tuple[int, TaskRun]] = []
    seen = after
    is_end = False
    read_rows = 0
    while len(found) <= limit and read_rows < READ_AT_MOST and not is_end:
        start = seen.row if seen else 0
        rows = await read(start, chunk)
        read_rows += len(rows)
        if seen and start and (not rows or rows[0].id < seen.id):
            seen = Mark(seen.id, max(0, start - stride))
            stride *= 2
            continue
        found += [
            (start + index, row)
            for index, row in enumerate(rows)
            if (seen is None or row.id < seen.id) and is_wanted(row)
        ]
        is_end = len(rows) < chunk
        if not is_end:
            seen = Mark(min(rows[-1].id, seen.id) if seen else rows[-1].id, start + chunk - 1)
    page = [task_run for _, task_run in found[:limit]]
    if len(found) > limit:
        row, last = found[limit - 1]
        return page, Mark(last.id, row)
    return page, None if is_end else seen
