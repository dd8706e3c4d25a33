"""Makes the whole spec of a job that names a registered workflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from uuid import UUID

import anyio.to_thread
from pydantic import ValidationError

from api.jobs.visible_jobs import VisibleJobs
from api.prefect.groups import Group
from api.web.problems import FieldProblem, InvalidRequest, UnknownWorkflow
from api.web.validation import problem_of
from api.workflows.checks import mistakes_in
from api.workflows.registry import Registry
from flows.contract.registered import RegisteredVersion, merged
from flows.contract.spec import JobSpec, Label

_FIXED = ("snakefile", "workdir", "environment", "software", "default_storage")
"""Fields of the spec that the version decides."""


@dataclass(frozen=True, slots=True)
class RegisteredRun:
    """A job of a registered workflow."""

    deployment_id: UUID
    version: RegisteredVersion
    spec: JobSpec

    @property
    def labels(self) -> Mapping[Label, str]:
        return {Label.WORKFLOW_NAME: self.version.name, Label.WORKFLOW_VERSION: self.version.version}


class RegisteredRuns:
    """Shared by all callers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def run_of(self, jobs: VisibleJobs, spec: JobSpec) -> RegisteredRun:
        """The job that `spec` asks for.

        Raises `UnknownWorkflow`, `InvalidRequest` with the place of each mistake, and
        `flows.contract.storage.StorageError`.
        """
        if spec.workflow is None or spec.workflow.name is None:
            raise ValueError("the spec names no registered workflow")
        workflow = await jobs.workflow(spec.workflow.name)
        version = await self.version(workflow, spec.workflow.version)
        whole = _whole(spec, version)
        mistakes = await anyio.to_thread.run_sync(mistakes_in, whole, version.description)
        if mistakes:
            raise InvalidRequest(
                "; ".join(f"{each.pointer}: {each.message}" for each in mistakes[:3]),
                f"Correct the fields listed under `errors`; they are described by "
                f"GET /workflows/{version.name}/versions/{version.version}.",
                mistakes,
            )
        return RegisteredRun(workflow.deployment_id, version, whole)

    async def version(self, workflow: Group, named: str | None) -> RegisteredVersion:
        """That version, or the default one. Raises `UnknownWorkflow`."""
        name, wanted = workflow.workflow or "", named or workflow.version
        pointer = "#/workflow/version" if named else "#/workflow/name"
        version = None
        if wanted is not None:
            version = await anyio.to_thread.run_sync(self._registry.read, name, wanted)
        if version is not None and not version.retired:
            return version
        versions = await anyio.to_thread.run_sync(self._registry.versions, name)
        offered = [each.version for each in versions if not each.retired]
        if wanted is None or not offered:
            detail = f"All versions of the workflow '{name}' are retired."
        else:
            state = "is retired" if version is not None else "does not exist"
            detail = f"The version '{wanted}' of the workflow '{name}' {state}."
        nearest = get_close_matches(wanted or "", offered, n=1)
        hint = f"Did you mean '{nearest[0]}'? " if nearest else ""
        listed = f"Versions: {', '.join(offered)}." if offered else "Ask who registered it for a new version."
        raise UnknownWorkflow(detail, hint + listed, [FieldProblem(pointer=pointer, message=detail)])


def _whole(spec: JobSpec, version: RegisteredVersion) -> JobSpec:
    """The spec of the version with what the job sets. Raises `InvalidRequest`."""
    given = spec.model_dump(mode="json", exclude_unset=True, exclude={"workflow", "group"})
    mistakes = [
        FieldProblem(pointer=f"#/{name}", message=f"is set by the version {version.version} of the workflow")
        for name in _FIXED
        if name in given
    ]
    if "group" in spec.model_fields_set and spec.group != version.group:
        message = f"the workflow '{version.name}' runs in the group '{version.group}'"
        mistakes.append(FieldProblem(pointer="#/group", message=message))
    if mistakes:
        detail = "; ".join(f"{each.pointer}: {each.message}" for each in mistakes)
        raise InvalidRequest(detail, "Leave these fields out, or register another version.", mistakes)
    try:
        return JobSpec.model_validate({**merged(version.job, given), "group": version.group})
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        raise problem_of(errors, JobSpec) from error
