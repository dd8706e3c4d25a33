"""The log of a job, or of one of its rule jobs, page by page."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Log
from prefect.client.schemas.sorting import LogSort

from api.prefect.filters import log_filter
from api.prefect.log_pages import LogKey, next_logs
from api.prefect.retries import translating_errors
from api.prefect.translation import log_line_from
from api.web.cursors import LogPosition
from api.web.queries import PageQuery
from api.web.schemas import LogPage


class LogReads:
    """Checks neither that the job exists, nor who asks."""

    def __init__(self, client: PrefectClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def page(
        self, job_id: UUID, task_id: UUID | None, query: PageQuery, after: LogPosition | None
    ) -> LogPage:
        """Oldest lines first. Raises `PrefectUnavailable`."""

        async def read(start: datetime | None, offset: int, limit: int) -> Sequence[Log]:
            return await self._client.read_logs(
                log_filter(job_id, task_id, start), sort=LogSort.TIMESTAMP_ASC, offset=offset, limit=limit
            )

        key = LogKey(after.timestamp, after.created, after.id) if after else None
        async with translating_errors(self._timeout_seconds):
            page, end = await next_logs(read, key, query.limit)
        listing = query.fingerprint(job_id, task_id)
        return LogPage(
            items=[log_line_from(log) for log in page],
            next_cursor=LogPosition(listing=listing, **asdict(end)).encode() if end else None,
        )
