"""Schedules of registered workflows: Prefect keeps them, and makes a job each time."""

from collections.abc import Sequence

from api.jobs.submissions import Submissions
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.groups import Group
from api.prefect.schedules import ScheduleRow, Schedules
from api.web.problems import NotFound
from api.workflows.parameters import parameters_of
from api.workflows.schedule_schemas import NewSchedule


class Scheduling:
    """Shared by all callers. Every method may raise `PrefectUnavailable`."""

    def __init__(self, schedules: Schedules, submissions: Submissions) -> None:
        self._schedules = schedules
        self._submissions = submissions

    async def of(self, workflow: Group) -> Sequence[ScheduleRow]:
        return await self._schedules.of(workflow.deployment_id)

    async def put(
        self, jobs: VisibleJobs, workflow: Group, slug: str, new: NewSchedule
    ) -> tuple[ScheduleRow, bool]:
        """The schedule, and whether it is new. Raises as a submission with these parameters does."""
        parameters = await parameters_of(self._submissions, jobs, workflow, new.parameters)
        if new.only_if_changed:
            parameters["dry_run"] = True
        fields = {
            "slug": slug,
            "active": new.active,
            "schedule": new.in_prefect(),
            "parameters": parameters,
        }
        known = await self._named(workflow, slug)
        if known is None:
            await self._schedules.create(workflow.deployment_id, fields)
        elif any(getattr(known, name) != value for name, value in fields.items()):
            await self._schedules.update(workflow.deployment_id, known.id, fields)
        made = await self._named(workflow, slug)
        if made is None:
            raise no_schedule(workflow, slug)
        return made, known is None

    async def delete(self, workflow: Group, slug: str) -> None:
        """Raises `NotFound`."""
        known = await self._named(workflow, slug)
        if known is None:
            raise no_schedule(workflow, slug)
        await self._schedules.delete(workflow.deployment_id, known.id)

    async def _named(self, workflow: Group, slug: str) -> ScheduleRow | None:
        return next((row for row in await self.of(workflow) if row.slug == slug), None)


def no_schedule(workflow: Group, slug: str) -> NotFound:
    return NotFound(
        f"The workflow '{workflow.workflow}' has no schedule '{slug}'.",
        f"GET /workflows/{workflow.workflow}/schedules lists them.",
    )
