"""Triggers of registered workflows: automations of Prefect, which run the deployment of the workflow.

A job of `completed` fires when it reaches Completed, and not as a dry run, whose final message says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.jobs.submissions import Submissions
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.automations import AutomationRow, Automations
from api.prefect.groups import Group
from api.web.problems import FieldProblem, InvalidRequest, NotFound, json_pointer
from api.workflows.parameters import parameters_of
from api.workflows.trigger_schemas import JOB_ID, NewTrigger, Trigger
from flows.contract.spec import RESERVED_KEY

_TEMPLATE = {RESERVED_KEY: "jinja", "template": "{{ flow_run.id }}"}
"""Prefect's own form of `JOB_ID`."""

_OF_TEMPLATES = ("{{", "{%", "{#")
_DEPLOYMENT = "prefect.deployment."
_DRY_RUN = "Dry run:*"


class Triggering:
    """Shared by all callers. Every method may raise `PrefectUnavailable`."""

    def __init__(self, automations: Automations, submissions: Submissions) -> None:
        self._automations = automations
        self._submissions = submissions

    async def of(self, workflow: Group) -> Sequence[Trigger]:
        rows = await self._automations.beginning_with(_name(workflow, ""))
        return [_trigger(row, row.name.removeprefix(_name(workflow, ""))) for row in rows]

    async def put(
        self, jobs: VisibleJobs, workflow: Group, slug: str, new: NewTrigger
    ) -> tuple[Trigger, bool]:
        """The trigger, and whether it is new. Raises as a submission with these parameters does."""
        source = await jobs.workflow(new.completed, "#/completed")
        _check(workflow, source, new)
        parameters = await parameters_of(self._submissions, jobs, workflow, new.parameters)
        automation = _automation(workflow, source, slug, new, parameters)
        known = await self._named(workflow, slug)
        if known is None:
            await self._automations.create(automation)
        else:
            await self._automations.replace(known.id, {**automation, "enabled": known.enabled})
        made = await self._named(workflow, slug)
        if made is None:
            raise _no_trigger(workflow, slug)
        return _trigger(made, slug), known is None

    async def delete(self, workflow: Group, slug: str) -> None:
        """Raises `NotFound`."""
        known = await self._named(workflow, slug)
        if known is None:
            raise _no_trigger(workflow, slug)
        await self._automations.delete(known.id)

    async def _named(self, workflow: Group, slug: str) -> AutomationRow | None:
        name = _name(workflow, slug)
        found = await self._automations.beginning_with(name)
        return next((row for row in found if row.name == name), None)


def _name(workflow: Group, slug: str) -> str:
    return f"snakemake trigger {workflow.workflow}/{slug}"


def _check(workflow: Group, source: Group, new: NewTrigger) -> None:
    """Raises `InvalidRequest`."""
    if source.name != workflow.name:
        raise _wrong("#/completed", f"'{new.completed}' is of another group than '{workflow.workflow}'")
    if source.deployment_id == workflow.deployment_id:
        raise _wrong("#/completed", "a workflow can't trigger itself")
    twice = sorted(new.outputs.keys() & _keys(new.parameters.get("inputs")))
    if twice:
        raise _wrong(json_pointer(["outputs", twice[0]]), "is in the inputs of `parameters`, too")
    for text in _texts(new.parameters):
        # Prefect takes texts of this form for templates, which could show what others may not see.
        if text != JOB_ID and any(each in text for each in _OF_TEMPLATES):
            raise _wrong("#/parameters", f"the only template is '{JOB_ID}', as a whole value")


def _automation(
    workflow: Group, source: Group, slug: str, new: NewTrigger, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    inputs = {place: {"job": _TEMPLATE, "path": path} for place, path in new.outputs.items()}
    whole = _replaced(parameters, JOB_ID, _TEMPLATE)
    if inputs:
        whole = {**whole, "inputs": {**whole.get("inputs", {}), **inputs}}
    return {
        "name": _name(workflow, slug),
        "description": f"Runs {workflow.workflow} when a job of {source.workflow} has completed.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "threshold": 1,
            "within": 0,
            "expect": ["prefect.flow-run.Completed"],
            "for_each": ["prefect.resource.id"],
            "match": {"prefect.resource.id": "prefect.flow-run.*", "prefect.state-message": f"!{_DRY_RUN}"},
            "match_related": {
                "prefect.resource.role": "deployment",
                "prefect.resource.id": f"{_DEPLOYMENT}{source.deployment_id}",
                "prefect.resource.name": source.workflow,
            },
        },
        "actions": [
            {
                "type": "run-deployment",
                "source": "selected",
                "deployment_id": str(workflow.deployment_id),
                "parameters": whole,
            }
        ],
    }


def _trigger(row: AutomationRow, slug: str) -> Trigger:
    parameters = dict(row.actions[0].get("parameters") or {})
    inputs = parameters.pop("inputs", {})
    outputs = {place: data["path"] for place, data in inputs.items() if data.get("job") == _TEMPLATE}
    own = {place: data for place, data in inputs.items() if place not in outputs}
    related = row.trigger["match_related"]
    related = related[0] if isinstance(related, list) else related
    return Trigger(
        slug=slug,
        active=row.enabled,
        completed=related["prefect.resource.name"],
        outputs=outputs,
        parameters=_replaced({**parameters, **({"inputs": own} if own else {})}, _TEMPLATE, JOB_ID),
    )


def _replaced(value: Any, old: Any, new: Any) -> Any:
    """`value` with `new` in each place of `old`."""
    if value == old:
        return new
    if isinstance(value, Mapping):
        return {key: _replaced(each, old, new) for key, each in value.items()}
    return [_replaced(each, old, new) for each in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterator[str]:
    """All texts in it, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _keys(value: Any) -> set[str]:
    return set(value) if isinstance(value, Mapping) else set()


def _wrong(pointer: str, message: str) -> InvalidRequest:
    return InvalidRequest(
        f"{pointer}: {message}",
        "Correct the fields listed under `errors`. /docs describes them.",
        [FieldProblem(pointer=pointer, message=message)],
    )


def _no_trigger(workflow: Group, slug: str) -> NotFound:
    return NotFound(
        f"The workflow '{workflow.workflow}' has no trigger '{slug}'.",
        f"GET /workflows/{workflow.workflow}/triggers lists them.",
    )
