"""Registers workflows: a job describes the workflow, then its deployment offers it."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import anyio.to_thread

from api.jobs.disposal import Disposal, bundle_of
from api.jobs.removal import Removal
from api.jobs.submissions import Submissions, fingerprint
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.deployments import Deployments
from api.prefect.groups import Group, GroupCache
from api.web.problems import FieldProblem, ProblemError, UnknownWorkflow, VersionExists, WorkflowRefused
from api.web.schemas import Job
from api.web.statuses import FINAL_STATUSES, JobStatus
from api.workflows.forms import form_of
from api.workflows.registry import Registry
from api.workflows.schemas import NewVersion
from flows.contract.registered import DESCRIPTION_NAME, RegisteredVersion, WorkflowDescription
from flows.contract.spec import JobSpec, Label
from flows.contract.storage import Storage, job_key

_LOOK_AGAIN_SECONDS = 0.2
_MOST_TRIES = 50


class Registration:
    """Shared by all callers. Every method may raise `PrefectUnavailable` and
    `flows.contract.storage.StorageError`.
    """

    def __init__(
        self,
        registry: Registry,
        deployments: Deployments,
        groups: GroupCache,
        submissions: Submissions,
        removal: Removal,
        disposal: Disposal,
        storage: Storage,
    ) -> None:
        self._registry = registry
        self._deployments = deployments
        self._groups = groups
        self._submissions = submissions
        self._removal = removal
        self._disposal = disposal
        self._storage = storage

    async def register(
        self, jobs: VisibleJobs, name: str, version: str, new: NewVersion, wait_seconds: float
    ) -> tuple[RegisteredVersion | Job, bool]:
        """The version, and whether it is new; or the job that describes it, if that takes longer.

        The same request again goes on where the first one was. Raises `VersionExists`,
        `WorkflowRefused` if the workflow can't be described, and all that submitting raises.
        """
        spec = new.spec(f"register {name} {version}")
        await self._check_name(jobs, name, new.group)
        known = await anyio.to_thread.run_sync(self._registry.read, name, version)
        if known is not None:
            _check_same(known, spec)
            await self._offer(jobs, known, is_default=new.default)
            return known, False
        job = await self._describe(jobs, name, version, spec, wait_seconds)
        if job.status not in FINAL_STATUSES:
            return job, True
        if job.status is not JobStatus.COMPLETED:
            raise _undescribed(job)
        made = await self._made(jobs, name, version, spec, job.id)
        await anyio.to_thread.run_sync(self._registry.write, made)
        await self._offer(jobs, made, is_default=new.default)
        with contextlib.suppress(ProblemError):  # else it stays, as other jobs do
            await self._removal.remove(jobs, job.id)
        return made, True

    async def retire(self, jobs: VisibleJobs, workflow: Group, version: str) -> RegisteredVersion:
        """Refuse new jobs of the version. The newest other one becomes the default, if this one was.

        Raises `UnknownWorkflow`.
        """
        name = workflow.workflow or ""
        known = await anyio.to_thread.run_sync(self._registry.read, name, version)
        if known is None:
            raise no_version(name, version)
        retired = known.model_copy(update={"retired": True})
        await anyio.to_thread.run_sync(self._registry.write, retired)
        if workflow.version == version:
            versions = await anyio.to_thread.run_sync(self._registry.versions, name)
            offered = [each for each in versions if not each.retired]
            group = await jobs.deployment_of(workflow.name)
            if offered:
                await self._deployments.offer(group, offered[0], form_of(offered[0]))
            else:
                await self._deployments.withdraw(group, name)
            self._groups.forget()
        return retired

    async def _check_name(self, jobs: VisibleJobs, name: str, group: str) -> None:
        """Raises `VersionExists` for a name that a group or a workflow of another group has."""
        await jobs.deployment_of(group)
        workflows = await self._groups.workflows(name)
        belongs_elsewhere = name in workflows and workflows[name].name != group
        if belongs_elsewhere or name in await self._groups.own(name):
            raise VersionExists(f"The name '{name}' is taken.", "Choose another name.")

    async def _describe(
        self, jobs: VisibleJobs, name: str, version: str, spec: JobSpec, wait_seconds: float
    ) -> Job:
        """The job that describes the workflow, as it is when it has ended, or after that time."""
        begun = datetime.now(UTC)
        key = f"register:{name}:{version}:{fingerprint(spec)}"
        labels = {Label.DESCRIBES: f"{name} {version}"}
        for _ in range(_MOST_TRIES):
            job = await self._submissions.submit(jobs, spec, key, labels)
            has_failed = job.status in FINAL_STATUSES and job.status is not JobStatus.COMPLETED
            if not has_failed or job.created_at is None or job.created_at > begun:
                break
            key = f"{key.partition('@')[0]}@{job.id}"  # an earlier try failed: try again
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while job.status not in FINAL_STATUSES and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            job = await jobs.get(job.id)
        return job

    async def _made(
        self, jobs: VisibleJobs, name: str, version: str, spec: JobSpec, job_id: UUID
    ) -> RegisteredVersion:
        content = await anyio.to_thread.run_sync(self._read, job_key(job_id, DESCRIPTION_NAME))
        description = WorkflowDescription.model_validate_json(content)
        job = spec.parameters()
        if description.commit is not None:
            job["workflow"] = {**job["workflow"], "ref": description.commit}
        bundle = bundle_of(job)
        if bundle is not None:  # it is needed for as long as the version is
            await anyio.to_thread.run_sync(self._disposal.note_use, bundle, f"workflow:{name}:{version}")
        return RegisteredVersion(
            name=name,
            version=version,
            group=spec.group,
            registered_at=datetime.now(UTC),
            registered_by=jobs.caller.name,
            sha256=fingerprint(spec),
            job=job,
            description=description,
        )

    async def _offer(self, jobs: VisibleJobs, version: RegisteredVersion, *, is_default: bool) -> None:
        """Make it the default version, if it is to be or there is none."""
        workflows = await self._groups.workflows(version.name)
        current = workflows.get(version.name)
        if version.retired or (current is not None and current.version and not is_default):
            return
        group = await jobs.deployment_of(version.group)
        await self._deployments.offer(group, version, form_of(version))
        self._groups.forget()

    def _read(self, key: str) -> bytes:
        return b"".join(self._storage.read(key))


def no_version(name: str, version: str) -> UnknownWorkflow:
    return UnknownWorkflow(
        f"There is no version '{version}' of the workflow '{name}'.",
        f"GET /workflows/{name} lists the versions.",
    )


def _check_same(known: RegisteredVersion, spec: JobSpec) -> None:
    if known.sha256 != fingerprint(spec):
        raise VersionExists(
            f"The version '{known.version}' of the workflow '{known.name}' is registered with other content.",
            "A version never changes: register another one.",
        )


def _undescribed(job: Job) -> WorkflowRefused:
    error: Any = job.error
    message = f"The job {job.id} was {job.status}." if error is None else error.message
    resolution = "Register it again." if error is None else error.resolution
    return WorkflowRefused(message, resolution, [FieldProblem(pointer="#/workflow", message=message)])
