"""Translates between WES and jobs, rule jobs and job specs. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import StateType
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from api.web.problems import WES_PREFIX as PREFIX
from api.web.problems import FieldProblem, InvalidRequest
from api.web.schemas import Job, JobError, RuleJob
from api.web.statuses import RuleJobStatus
from api.wes.schemas import Log, RunRequest, RunStatus, RunSummary, State, TaskLog
from flows.contract.environments import TESTED_SNAKEMAKE, of_snakemake
from flows.contract.options import Options
from flows.contract.registered import named_workflow
from flows.contract.spec import SNAKEFILE_NAMES, EngineName, ErrorKind, JobSpec, MockOptions

WORKFLOW_TYPES = ("SMK", "Snakemake")
WORKFLOW_TYPE_VERSIONS = ("1.0", "8", "9")
"""Snakemake's language has no version of its own. WES servers use 1.0; 8 and 9 are Snakemake's versions."""

ENGINE = "snakemake"

STATES: Mapping[StateType, State] = {
    StateType.SCHEDULED: State.QUEUED,
    StateType.PENDING: State.INITIALIZING,
    StateType.RUNNING: State.RUNNING,
    StateType.PAUSED: State.PAUSED,
    StateType.COMPLETED: State.COMPLETE,
    StateType.FAILED: State.EXECUTOR_ERROR,
    StateType.CRASHED: State.SYSTEM_ERROR,
    StateType.CANCELLING: State.CANCELING,
    StateType.CANCELLED: State.CANCELED,
}

_EXIT_CODES = {State.COMPLETE: 0, State.EXECUTOR_ERROR: 1}
_BLOB = re.compile(r"^(?P<git>https://[^/]+/.+?)(?:/-)?/blob/(?P<ref>[^/]+)/(?P<file>.+)$")


class Form(BaseModel):
    """The decoded fields of a submission: JSON, where WES has strings with JSON."""

    model_config = ConfigDict(frozen=True)

    workflow_type: str
    workflow_type_version: str
    workflow_url: str = Field(min_length=1)
    workflow_params: dict[str, JsonValue] = {}
    tags: dict[str, str] = {}
    workflow_engine: str | None = None
    workflow_engine_version: str | None = None
    workflow_engine_parameters: dict[str, JsonValue] = {}


def spec_from(form: Form, bundle: str | None) -> JobSpec:
    """The spec of the submitted job; `bundle` holds its attachments. Raises `InvalidRequest`."""
    _check_known("workflow_type", form.workflow_type, WORKFLOW_TYPES)
    _check_known("workflow_type_version", form.workflow_type_version, WORKFLOW_TYPE_VERSIONS)
    if form.workflow_engine_version is not None and form.workflow_engine is None:
        raise _refused("workflow_engine", "is required with workflow_engine_version")
    _check_known("workflow_engine", form.workflow_engine, (ENGINE,))
    _check_known("workflow_engine_version", form.workflow_engine_version, TESTED_SNAKEMAKE)
    spec = {
        "config": form.workflow_params,
        "tags": form.tags,
        **_workflow(form.workflow_url, bundle),
        **_settings(form.workflow_engine_parameters),
    }
    if form.workflow_engine_version not in (None, TESTED_SNAKEMAKE[-1]) and "environment" not in spec:
        spec["environment"] = of_snakemake(form.workflow_engine_version or "")
    if spec.get("engine") == EngineName.MOCK:
        spec.pop("workflow")
        spec.pop("snakefile", None)
    place = {name: spec.pop(name) for name in ("ref", "subdir") if name in spec}
    if place:
        spec["workflow"] = {**place, **spec["workflow"]}
    try:
        return JobSpec.model_validate(spec)
    except ValidationError as error:
        first = error.errors()[0]
        raise _refused(".".join(map(str, first["loc"])) or "the request", first["msg"]) from error


def request_from(
    parameters: Mapping[str, Any], tags: Mapping[str, str], kept: str | None, place: str | None = None
) -> RunRequest:
    """The request as it was submitted to WES, or its equivalent for a job submitted otherwise.

    `place` is where an attached run runs.
    """
    form = Form.model_validate_json(kept) if kept else None
    options = {name: value for name, value in parameters.items() if name not in ("config", "workflow")}
    return RunRequest(
        workflow_params=parameters.get("config", {}),
        workflow_type=form.workflow_type if form else WORKFLOW_TYPES[0],
        workflow_type_version=form.workflow_type_version if form else WORKFLOW_TYPE_VERSIONS[0],
        tags=dict(tags),
        workflow_engine_parameters={
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in (form.workflow_engine_parameters if form else options).items()
        },
        workflow_engine=form.workflow_engine if form else ENGINE,
        workflow_engine_version=form.workflow_engine_version if form else None,
        workflow_url=form.workflow_url if form else place or _url(parameters.get("workflow") or {}),
    )


def state_of(job: Job) -> State:
    return STATES[job.state_type]


def status_from(job: Job) -> RunStatus:
    return RunStatus(run_id=str(job.id), state=state_of(job))


def summary_from(job: Job) -> RunSummary:
    return RunSummary(
        run_id=str(job.id),
        state=state_of(job),
        start_time=job.started_at,
        end_time=job.finished_at,
        tags=job.tags,
    )


def run_log_from(job: Job, base_url: str, has_log: bool) -> Log:
    """Snakemake writes one log, so both addresses lead to it. Some jobs, such as mocks, have none."""
    log = f"{base_url}{PREFIX}/runs/{job.id}/log" if has_log else None
    return Log(
        name=job.name,
        cmd=None,
        start_time=job.started_at,
        end_time=job.finished_at,
        stdout=log,
        stderr=log,
        exit_code=_EXIT_CODES.get(state_of(job)),
        system_logs=_system_logs(job.error),
    )


def task_log_from(task: RuleJob, job_id: str, base_url: str) -> TaskLog:
    log = f"{base_url}{PREFIX}/runs/{job_id}/tasks/{task.id}/log" if task.attempts else None
    return TaskLog(
        id=str(task.id),
        name=task.name,
        cmd=[task.shell] if task.shell else None,
        start_time=task.started_at,
        end_time=task.finished_at,
        stdout=log,
        stderr=log,
        exit_code=0 if task.status in (RuleJobStatus.COMPLETED, RuleJobStatus.SKIPPED) else None,
        system_logs=[task.error] if task.error else [],
    )


def default_parameters() -> list[dict[str, str]]:
    """The supported `workflow_engine_parameters`, with types and defaults."""
    found = []
    for name, field in _PARAMETERS.items():
        default = field.get_default(call_default_factory=True)
        text = default if isinstance(default, str) else json.dumps(default, default=str)
        found.append({"name": name, "type": _type_name(field), "default_value": text})
    return found


def _type_name(field: FieldInfo) -> str:
    """The types of JSON that a field accepts."""
    adapter: TypeAdapter[Any] = TypeAdapter(field.annotation or object)
    schema = adapter.json_schema()
    names = (choice.get("type", "object") for choice in schema.get("anyOf", [schema]))
    return " or ".join(dict.fromkeys(name for name in names if name != "null"))


def _system_logs(error: JobError | None) -> list[str]:
    if error is None:
        return []
    kind = "The workflow failed" if error.kind is ErrorKind.WORKFLOW else "The service failed"
    return [f"{kind}: {error.message}", error.resolution]


_OF_THE_JOB = (
    *("name", "group", "engine", "snakefile", "directory", "workdir", "inputs", "files", "targets"),
    *("environment", "software", "env", "secrets", "default_storage", "cores", "resources"),
    *("timeout_seconds", "dry_run", "spot"),
)
_PARAMETERS = {
    **{name: JobSpec.model_fields[name] for name in _OF_THE_JOB},
    **Options.model_fields,
    **{f"mock.{name}": field for name, field in MockOptions.model_fields.items()},
}
_OF_THE_SOURCE = ("ref", "subdir")


def _settings(parameters: Mapping[str, JsonValue]) -> dict[str, Any]:
    """Parts of a job spec. Names may be written like options of a command line (`--keep-going`)."""
    settings: dict[str, Any] = {"options": {}, "mock": {}}
    for written, value in parameters.items():
        name = written.lstrip("-").replace("-", "_")
        decoded = _decoded(value)
        if name in _LISTS and isinstance(decoded, str):
            decoded = decoded.split()
        if name in Options.model_fields:
            settings["options"][name] = True if decoded in (None, "", []) else decoded
        elif name in _OF_THE_JOB or name in _OF_THE_SOURCE:
            # Text even if it looks like a number, as the tag 1.0 does.
            settings[name] = value if name in _TEXTS else decoded
        elif name.startswith("mock.") and name in _PARAMETERS:
            settings["mock"][name.removeprefix("mock.")] = decoded
        else:
            known = ", ".join([*_PARAMETERS, *_OF_THE_SOURCE])
            raise _refused(f"workflow_engine_parameters.{written}", f"is unknown; use one of: {known}")
    return {name: value for name, value in settings.items() if value != {}}


_TEXTS = ("name", "group", "snakefile", "workdir", *_OF_THE_SOURCE)
_LISTS = frozenset(name for name, field in _PARAMETERS.items() if "tuple" in str(field.annotation))
"""They may also be written as words, as on a command line."""


def _decoded(value: JsonValue) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _workflow(url: str, bundle: str | None) -> dict[str, Any]:
    if bundle is not None:
        if "://" in url:
            raise _refused("workflow_url", "must be the path of one of the attachments")
        return {"workflow": {"bundle": bundle}, "snakefile": url.removeprefix("./")}
    if blob := _BLOB.match(url):
        source = {"git": blob["git"], "ref": blob["ref"]}
        return {"workflow": source, "snakefile": blob["file"]}
    if url.startswith("file://"):
        return {"workflow": {"path": url.removeprefix("file://")}}
    if "://" in url:
        return {"workflow": {"git": url.removeprefix("git+")}}
    if url not in SNAKEFILE_NAMES and (registered := named_workflow(url)) is not None:
        return {"workflow": registered}
    raise _refused("workflow_url", "is a relative path, but there is no workflow_attachment")


def _url(workflow: Mapping[str, Any]) -> str:
    for key in ("git", "bundle"):
        if workflow.get(key):
            return str(workflow[key])
    return f"file://{workflow['path']}" if workflow.get("path") else "mock"


def _check_known(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value.lower() not in [each.lower() for each in known]:
        raise _refused(name, f"'{value[:100]}' is not supported; use one of: {', '.join(known)}")


def _refused(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} {message}.",
        f"GET {PREFIX}/service-info lists what is supported.",
        [FieldProblem(pointer=name, message=message)],
    )
