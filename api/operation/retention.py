"""Removes jobs when they have reached the age that a setting names."""

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
    """Looks for old jobs again and again. Two replicas may do so at once: what is gone is gone."""

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
        """Until it is cancelled."""
        while True:
            try:
                await self.remove_old_jobs()
            except (ProblemError, StorageError) as error:
                _log.warning("Old jobs are not removed now: %s", error)
            await asyncio.sleep(self._look_every.total_seconds())

    async def remove_old_jobs(self) -> int:
        """Remove all jobs that are too old, each tried once; how many went."""
        removed = left = 0
        while True:
            # Oldest first: those that stay are passed over.
            old = await self._overview.ended_before(datetime.now(UTC) - self._age, left)
            if not old:
                return removed
            gone = [await self._remove(job_id) for job_id in old].count(True)
            removed, left = removed + gone, left + len(old) - gone

    async def _remove(self, job_id: UUID) -> bool:
        try:
            await self._removal.remove(self._jobs, job_id)
        except (NotFound, JobNotFinished):
            return False  # another replica was faster, or somebody goes on with it
        except StorageError as error:
            _log.warning("Job %s is not removed now: %s", job_id, error)
            return False
        _log.info("Removed job %s, which ended more than %s ago.", job_id, self._age)
        return True
