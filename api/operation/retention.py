"""Removes jobs when they have reached the age that a setting names."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from api.jobs import Jobs
from api.overview import Overview
from api.problems import NotFound, ProblemError
from flows.storage import StorageError

_log = logging.getLogger(__name__)


class Retention:
    """Looks for old jobs again and again. Two replicas may do so at once: what is gone is gone."""

    def __init__(self, overview: Overview, jobs: Jobs, age: timedelta, look_every: timedelta) -> None:
        self._overview = overview
        self._jobs = jobs
        self._age = age
        self._look_every = look_every

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                while await self.remove_some():
                    pass
            except (ProblemError, StorageError) as error:
                _log.warning("Old jobs are not removed now: %s", error)
            await asyncio.sleep(self._look_every.total_seconds())

    async def remove_some(self) -> int:
        """Remove the oldest jobs that are too old; how many."""
        old = await self._overview.ended_before(datetime.now(UTC) - self._age)
        for job_id in old:
            try:
                await self._jobs.delete(job_id)
            except NotFound:
                continue  # another replica was faster
            _log.info("Removed job %s, which ended more than %s ago.", job_id, self._age)
        return len(old)
