"""What one caller may see: the jobs of its groups. This is where the service authorizes access to jobs.

Jobs of other groups are treated as if they did not exist. All that concerns one job begins with
`VisibleJobs.get`, and all that names a group with `VisibleJobs.deployment_of`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import StateType

from api.auth.callers import Caller
from api.prefect.flow_runs import no_job
from api.prefect.groups import Group
from api.prefect.reads import JobReads
from api.web.cursors import JobPosition, LogPosition, RuleJobPosition
from api.web.problems import FieldProblem, UnknownGroup, UnknownWorkflow
from api.web.queries import JobQuery, PageQuery, RuleJobQuery
from api.web.schemas import Job, JobPage, LogPage, RuleJob, RuleJobPage
from flows.contract.spec import Label


@dataclass(frozen=True, slots=True)
class VisibleJobs:
    """Every method may raise `PrefectUnavailable`; those that name a job, `NotFound`."""

    caller: Caller
    reads: JobReads

    async def get(self, job_id: UUID) -> Job:
        """The job as it was at most `api.prefect.job_cache.FRESH_SECONDS` ago."""
        job = await self.reads.flow_runs.get(job_id)
        if job is None or not self.caller.may_see(job.group):
            raise no_job(job_id)
        return job

    async def sharing_work(self, job: Job) -> frozenset[UUID]:
        """The jobs in whose working directory this one may work, because it continues them."""
        if job.resumes is None:
            return frozenset()
        row = await self.reads.flow_runs.row(job.id)
        first = row.labels.get(Label.WORK)
        return frozenset({job.resumes} if first is None else {job.resumes, UUID(str(first))})

    async def list(self, query: JobQuery) -> JobPage:
        """A page of jobs, newest first. Raises `UnknownGroup` and `BadCursor`."""
        after = JobPosition.decode(query.cursor, query.fingerprint())
        async with self.reads.flow_runs.reading():
            groups = await self._groups()
            if query.group is not None:
                await self.deployment_of(query.group, "?group")
                groups = {each: name for each, name in groups.items() if name == query.group}
            if query.workflow is not None:
                found = await self.workflow(query.workflow, "?workflow")
                groups = {each: name for each, name in groups.items() if each == found.deployment_id}
            if not groups:
                return JobPage(items=[], next_cursor=None)
            return await self.reads.flow_runs.page(query, groups, after)

    async def count(self) -> Mapping[StateType, int]:
        """How many jobs are in each type of state, exactly."""
        async with self.reads.flow_runs.reading():
            return await self.reads.flow_runs.count(list(await self._groups()))

    async def submission(self, job_id: UUID) -> tuple[Mapping[str, Any], str | None]:
        """The parameters of a job, and the WES request that submitted it, if one did."""
        await self.get(job_id)
        row = await self.reads.flow_runs.row(job_id)
        request = row.labels.get(Label.WES_REQUEST)
        return row.parameters, None if request is None else str(request)

    async def tasks(self, job_id: UUID, query: RuleJobQuery) -> RuleJobPage:
        """A page of the job's rule jobs. Raises `BadCursor`."""
        after = RuleJobPosition.decode(query.cursor, query.fingerprint(job_id))
        await self.get(job_id)
        return await self.reads.rule_jobs.page(job_id, query, after)

    async def task(self, job_id: UUID, task_id: UUID) -> RuleJob:
        await self.get(job_id)
        return await self.reads.rule_jobs.one(job_id, task_id)

    async def logs(self, job_id: UUID, query: PageQuery, task_id: UUID | None = None) -> LogPage:
        """A page of the log of the job, or of one of its rule jobs. Raises `BadCursor`."""
        after = LogPosition.decode(query.cursor, query.fingerprint(job_id, task_id))
        if task_id is None:
            await self.get(job_id)
        else:
            await self.task(job_id, task_id)
        return await self.reads.logs.page(job_id, task_id, query, after)

    async def deployment_of(self, group: str, pointer: str = "#/group") -> UUID:
        """The deployment that is `group`; `pointer` is where the client named it.

        Raises `UnknownGroup`, with the same words for a group of other callers as for one that does
        not exist: which groups exist is not disclosed.
        """
        groups = await self.reads.flow_runs.groups.own(group)
        visible = {name: each.deployment_id for name, each in groups.items() if self.caller.may_see(name)}
        if group not in visible:
            raise _unknown_group(group, sorted(visible), pointer)
        return visible[group]

    async def workflow(self, name: str, pointer: str = "#/workflow/name") -> Group:
        """The registered workflow with this name. Raises `UnknownWorkflow`, also for one of other callers."""
        visible = await self.workflows(name)
        if name not in visible:
            raise _unknown_workflow(name, sorted(visible), pointer)
        return visible[name]

    async def workflows(self, name: str | None = None) -> Mapping[str, Group]:
        """The registered workflows by name; read again if `name` is not among them."""
        workflows = await self.reads.flow_runs.groups.workflows(name)
        return {each: group for each, group in workflows.items() if self.caller.may_see(group.name)}

    async def _groups(self) -> Mapping[UUID, str]:
        names = await self.reads.flow_runs.groups.names()
        return {deployment_id: name for deployment_id, name in names.items() if self.caller.may_see(name)}


def _unknown_group(group: str, known: list[str], pointer: str) -> UnknownGroup:
    nearest = get_close_matches(group, known, n=1)
    hint = f"Did you mean '{nearest[0]}'? " if nearest else ""
    listed = f"Groups: {', '.join(known)}." if known else "No group is deployed yet: ask the operator."
    detail = f"There is no group '{group}'."
    return UnknownGroup(detail, hint + listed, [FieldProblem(pointer=pointer, message=detail)])


def _unknown_workflow(name: str, known: list[str], pointer: str) -> UnknownWorkflow:
    nearest = get_close_matches(name, known, n=1)
    hint = f"Did you mean '{nearest[0]}'? " if nearest else ""
    listed = "GET /workflows lists the registered workflows." if known else "None is registered yet."
    detail = f"There is no registered workflow '{name}'."
    return UnknownWorkflow(detail, hint + listed, [FieldProblem(pointer=pointer, message=detail)])
