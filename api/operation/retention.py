"""Removes jobs that ended longer ago than a setting says."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID

from api.jobs.removal import Removal
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.overview import Overview
from api.web.problems import JobNotFinished, NotFound, ProblemError
from flows.contract.storage import StorageError

_log = logging.getLogger(__name__)


class Retention:
    """Looks for old jobs periodically. Several replicas may do so at once."""

    def __init__(
        self,
        overview: Overview,
        removal: Removal,
        jobs: VisibleJobs,
        age: timedelta,
        look_every: timedelta,
    ) -> None:
        self._overview = overview
        self._removal = removal
        self._jobs = jobs
        self._age = age
        self._look_every = look_every

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                await self.remove_old_jobs()
            except (ProblemError, StorageError) as error:
                _log.warning("Old jobs can't be removed now: %s", error)
            await asyncio.sleep(self._look_every.total_seconds())

    async def remove_old_jobs(self) -> int:
        """Tries to remove each job that is too old, once; returns how many were removed."""
        removed = left = 0
        while True:
            # Oldest first. Those that could not be removed are skipped.
            old = await self._overview.ended_before(datetime.now(UTC) - self._age, left)
            if not old:
                return removed
            gone = [await self._remove(job_id) for job_id in old].count(True)
            removed, left = removed + gone, left + len(old) - gone

    async def _remove(self, job_id: UUID) -> bool:
        try:
            await self._removal.remove(self._jobs, job_id)
        except (NotFound, JobNotFinished):
            return False  # another replica removed it, or a job that resumes it is open
        except StorageError as error:
            _log.warning("Job %s can't be removed now: %s", job_id, error)
            return False
        _log.info("Removed job %s, which ended more than %s ago.", job_id, self._age)
        return True
