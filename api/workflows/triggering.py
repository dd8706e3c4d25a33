"""Triggers of registered workflows: automations of Prefect, which run the deployment of the workflow.

A job of `completed` fires when it reaches Completed, and not as a dry run, whose final message says so. A
new file fires by an event that the facade sends (`api.workflows.new_files`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.jobs.submissions import Submissions
from api.jobs.visible_jobs import VisibleJobs
from api.prefect.automations import AutomationRow, Automations
from api.prefect.groups import Group
from api.web.problems import FieldProblem, InvalidRequest, NotFound, json_pointer
from api.workflows.new_files import EVENT, NewFiles, pattern_of, resource_of
from api.workflows.parameters import parameters_of
from api.workflows.trigger_schemas import FILE, JOB_ID, NewTrigger, Trigger
from flows.contract.data_roots import DataRefused
from flows.contract.spec import RESERVED_KEY

_TEMPLATES = {
    JOB_ID: {RESERVED_KEY: "jinja", "template": "{{ flow_run.id }}"},
    FILE: {RESERVED_KEY: "jinja", "template": "{{ event.resource['path'] }}"},
}
"""In Prefect's own form."""

_OF_TEMPLATES = ("{{", "{%", "{#")
_DEPLOYMENT = "prefect.deployment."
_DRY_RUN = "Dry run:*"


class Triggering:
    """Shared by all callers. Every method may raise `PrefectUnavailable`."""

    def __init__(self, automations: Automations, submissions: Submissions, new_files: NewFiles) -> None:
        self._automations = automations
        self._submissions = submissions
        self._new_files = new_files

    async def of(self, workflow: Group) -> Sequence[Trigger]:
        rows = await self._automations.beginning_with(_name(workflow, ""))
        return [_trigger(row, row.name.removeprefix(_name(workflow, ""))) for row in rows]

    async def put(
        self, jobs: VisibleJobs, workflow: Group, slug: str, new: NewTrigger
    ) -> tuple[Trigger, bool]:
        """The trigger, and whether it is new. Raises as a submission with these parameters does."""
        source = None if new.completed is None else await jobs.workflow(new.completed, "#/completed")
        _check(workflow, source, new)
        if new.new_file is not None:
            self._check_new_file(new.new_file, workflow.name)
        parameters = await parameters_of(self._submissions, jobs, workflow, new.parameters)
        automation = _automation(workflow, source, slug, new, parameters)
        known = await self._named(workflow, slug)
        if new.new_file is not None and not await self._is_watched(new.new_file):
            await self._new_files.begin(new.new_file, workflow.name)
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

    def _check_new_file(self, pattern: str, group: str) -> None:
        """Raises `InvalidRequest`."""
        try:
            self._new_files.check(pattern, group)
        except DataRefused as refusal:
            raise _wrong("#/new_file", f"{refusal}. {refusal.resolution}") from refusal

    async def _is_watched(self, pattern: str) -> bool:
        return any(pattern_of(row) == pattern for row in await self._automations.beginning_with(""))

    async def _named(self, workflow: Group, slug: str) -> AutomationRow | None:
        name = _name(workflow, slug)
        found = await self._automations.beginning_with(name)
        return next((row for row in found if row.name == name), None)


def _name(workflow: Group, slug: str) -> str:
    return f"snakemake trigger {workflow.workflow}/{slug}"


def _check(workflow: Group, source: Group | None, new: NewTrigger) -> None:
    """Raises `InvalidRequest`."""
    if source is not None and source.name != workflow.name:
        raise _wrong("#/completed", f"'{new.completed}' is of another group than '{workflow.workflow}'")
    if source is not None and source.deployment_id == workflow.deployment_id:
        raise _wrong("#/completed", "a workflow can't trigger itself")
    own = _keys(new.parameters.get("inputs"))
    if twice := sorted(new.outputs.keys() & own):
        raise _wrong(json_pointer(["outputs", twice[0]]), "is in the inputs of `parameters`, too")
    if new.file_as in own:
        raise _wrong("#/file_as", "is in the inputs of `parameters`, too")
    template = FILE if source is None else JOB_ID
    for text in _texts(new.parameters):
        # Prefect takes texts of this form for templates, which could show what others may not see.
        if text != template and any(each in text for each in _OF_TEMPLATES):
            raise _wrong("#/parameters", f"the only template is '{template}', as a whole value")


def _automation(
    workflow: Group, source: Group | None, slug: str, new: NewTrigger, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    inputs = {place: {"job": _TEMPLATES[JOB_ID], "path": path} for place, path in new.outputs.items()}
    if new.file_as is not None:
        inputs[new.file_as] = {"path": _TEMPLATES[FILE]}
    whole = parameters
    for ours, prefects in _TEMPLATES.items():
        whole = _replaced(whole, ours, prefects)
    if inputs:
        whole = {**whole, "inputs": {**whole.get("inputs", {}), **inputs}}
    return {
        "name": _name(workflow, slug),
        "description": f"Runs {workflow.workflow} "
        + (f"for each new file {new.new_file}." if source is None else f"after jobs of {source.workflow}."),
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "threshold": 1,
            "within": 0,
            **(_of_a_file(new.new_file or "") if source is None else _of_a_job(source)),
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


def _of_a_job(source: Group) -> dict[str, Any]:
    return {
        "expect": ["prefect.flow-run.Completed"],
        "for_each": ["prefect.resource.id"],
        "match": {"prefect.resource.id": "prefect.flow-run.*", "prefect.state-message": f"!{_DRY_RUN}"},
        "match_related": {
            "prefect.resource.role": "deployment",
            "prefect.resource.id": f"{_DEPLOYMENT}{source.deployment_id}",
            "prefect.resource.name": source.workflow,
        },
    }


def _of_a_file(pattern: str) -> dict[str, Any]:
    return {
        "expect": [EVENT],
        "for_each": ["prefect.resource.id"],
        "match": {"prefect.resource.id": resource_of(pattern)},
    }


def _trigger(row: AutomationRow, slug: str) -> Trigger:
    parameters = dict(row.actions[0].get("parameters") or {})
    inputs = parameters.pop("inputs", {})
    outputs = {place: data["path"] for place, data in inputs.items() if data.get("job") == _TEMPLATES[JOB_ID]}
    files = [place for place, data in inputs.items() if data.get("path") == _TEMPLATES[FILE]]
    own = {place: data for place, data in inputs.items() if place not in outputs and place not in files}
    given = {**parameters, **({"inputs": own} if own else {})}
    for ours, prefects in _TEMPLATES.items():
        given = _replaced(given, prefects, ours)
    pattern = pattern_of(row)
    return Trigger(
        slug=slug,
        active=row.enabled,
        completed=_source_of(row) if pattern is None else None,
        new_file=pattern,
        file_as=files[0] if files else None,
        outputs=outputs,
        parameters=given,
    )


def _source_of(row: AutomationRow) -> str:
    related = row.trigger["match_related"]
    name: str = (related[0] if isinstance(related, list) else related)["prefect.resource.name"]
    return name


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
