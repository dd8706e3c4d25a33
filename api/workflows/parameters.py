"""What the jobs set that Prefect makes of a registered workflow, checked beforehand."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from api.jobs.submissions import Submissions
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.groups import Group
from api.web.problems import FieldProblem, InvalidRequest, json_pointer
from api.web.validation import problem_of
from flows.contract.spec import JobSpec

_AT = "parameters"
_NOT_OF_THE_FLOW = ("workflow", "engine", "mock", "dry_run", "name", "group", "tags", "webhook", "spot")
"""Fields that only the jobs API can set, or that decide what is run."""


async def parameters_of(
    submissions: Submissions, jobs: VisibleJobs, workflow: Group, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters of such a job, each whole: Prefect replaces a field of the version, and merges nothing.

    Raises as a submission does; the places of mistakes are below `#/parameters`.
    """
    try:
        spec = _spec(workflow.workflow or "", given)
        whole = (await submissions.check(jobs, spec)).parameters()
    except InvalidRequest as error:
        raise type(error)(error.detail, error.resolution, _below_parameters(error.errors)) from error
    return {name: whole[name] for name in given}


def _spec(name: str, given: Mapping[str, Any]) -> JobSpec:
    """The job that the schedule makes. Raises `InvalidRequest`."""
    wrong = [
        FieldProblem(pointer=json_pointer([each]), message="can't be set here")
        for each in given
        if each in _NOT_OF_THE_FLOW
    ]
    if wrong:
        detail = "; ".join(f"#/{_AT}{each.pointer.removeprefix('#')}: {each.message}" for each in wrong)
        raise InvalidRequest(detail, "Leave these fields out.", wrong)
    try:
        return JobSpec.model_validate({**given, "workflow": {"name": name}})
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        raise problem_of(errors, JobSpec) from error


def _below_parameters(errors: Sequence[FieldProblem]) -> list[FieldProblem]:
    return [
        FieldProblem(pointer=f"#/{_AT}{each.pointer.removeprefix('#')}", message=each.message)
        for each in errors
    ]
