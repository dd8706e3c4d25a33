"""Schedules that plan first: the dry run becomes a job if something is to be done, else nothing.

Prefect makes a dry run each time (`only_if_changed`). It is removed when it has completed, so one that is
there has not been followed up yet: a restarted replica goes on where another has stopped. Two at once make
one job, by its idempotency key.
"""

import asyncio
import logging
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.schemas.objects import StateType

from api.auth.callers import Caller, TokenScope
from api.jobs.removal import Removal
from api.jobs.submissions import Submissions
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.overview import Overview
from api.prefect.reads import JobReads
from api.prefect.rows import FlowRunRow
from api.prefect.schedules import ScheduleRow, Schedules
from api.web.problems import InvalidRequest, NotFound, ProblemError
from api.workflows.schedule_schemas import SLUG_PATTERN, plans_first, without_plan
from flows.contract.spec import JobSpec, Label
from flows.contract.storage import StorageError

LOOK_BACK = timedelta(days=1)
"""How long all replicas may be down: dry runs that completed in that time are still followed up."""

LOOK_SECONDS = 2.0
_BY_PREFECT = "auto-scheduled"
"""Prefect's tag of the flow runs that its schedules make."""

_log = logging.getLogger(__name__)


class Plans:
    """Runs in the background as long as the facade."""

    def __init__(
        self,
        overview: Overview,
        schedules: Schedules,
        reads: JobReads,
        submissions: Submissions,
        removal: Removal,
    ) -> None:
        self._ended = overview.ended(datetime.now(UTC) - LOOK_BACK)
        self._schedules = schedules
        self._reads = reads
        self._submissions = submissions
        self._removal = removal
        self._open: dict[UUID, FlowRunRow] = {}
        self._made: dict[UUID, UUID] = {}
        """The newest job of each schedule. After a restart, one job may be made that does nothing."""

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                self._open |= {row.id: row for row in await self._ended.next() if _is_plan(row)}
                for row in list(self._open.values()):
                    await self._follow(row)
                    del self._open[row.id]
            except (ProblemError, StorageError) as error:
                _log.warning("Scheduled dry runs can't be followed up now: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    async def _follow(self, row: FlowRunRow) -> None:
        """Make the job, if there is anything to do, and remove the dry run."""
        try:
            schedule, is_deleted = await self._schedule_of(row)
            if schedule is None and not is_deleted:
                return
            group = await self._reads.flow_runs.groups.name_of(row.deployment_id)
            jobs = VisibleJobs(Caller("schedule", TokenScope.SUBMIT, frozenset({group or ""})), self._reads)
            if schedule and _has_work(row) and not await self._is_outdated(jobs, row, schedule):
                job = await self._submissions.submit(jobs, _spec(row, schedule), f"plan:{row.id}")
                self._made[schedule.id] = job.id
                _log.info("The schedule '%s' has made the job %s.", schedule.slug, job.id)
            await self._removal.remove(jobs, row.id)
        except NotFound:
            pass  # another replica has followed it up
        except InvalidRequest as error:
            _log.warning("The dry run %s of a schedule becomes no job: %s", row.id, error)

    async def _is_outdated(self, jobs: VisibleJobs, row: FlowRunRow, schedule: ScheduleRow) -> bool:
        """Whether the job before has worked in the directory since this was planned."""
        if schedule.id not in self._made:
            return False
        try:
            job = await jobs.get(self._made[schedule.id])
        except NotFound:
            return False
        return job.finished_at is None or row.start_time is None or job.finished_at > row.start_time

    async def _schedule_of(self, row: FlowRunRow) -> tuple[ScheduleRow | None, bool]:
        """The schedule that has made it, if it plans first; and whether one with a slug was deleted."""
        made_by = (await self._reads.flow_runs.whole(row.id)).created_by
        if made_by is None or row.deployment_id is None:
            return None, False
        found = {each.id: each for each in await self._schedules.of(row.deployment_id)}
        if made_by.id not in found:  # Prefect notes a slug, or the class of a schedule without
            return None, re.fullmatch(SLUG_PATTERN, made_by.display_value or "") is not None
        schedule = found[made_by.id]
        return (schedule if plans_first(schedule) else None), False


def _is_plan(row: FlowRunRow) -> bool:
    is_complete = row.state_type is StateType.COMPLETED
    return is_complete and _BY_PREFECT in row.tags and row.parameters.get("dry_run") is True


def _has_work(row: FlowRunRow) -> bool:
    """Whether a rule job was not up to date."""
    done, total = (row.labels.get(each) for each in (Label.PROGRESS_DONE, Label.PROGRESS_TOTAL))
    return total is None or done != total


def _spec(row: FlowRunRow, schedule: ScheduleRow) -> JobSpec:
    workflow = {"name": row.labels[Label.WORKFLOW_NAME], "version": row.labels[Label.WORKFLOW_VERSION]}
    return JobSpec.model_validate(
        {**without_plan(schedule.parameters), "workflow": workflow, "name": row.name}
    )
