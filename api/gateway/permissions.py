"""Which of Prefect's requests a job may send, and in which form they reach Prefect. Pure.

The list is what Prefect's runner and engine and our flow send for one job. A request is not passed on as
it came: it is made anew from the fields that are known here, with the filters that limit it to the job.

    NotPermitted    the request is not one that a job sends, or concerns something else
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from api.gateway.rule_jobs import RuleJobs
from api.gateway.storage_access import Files
from flows.contract.spec import DEFAULT_GROUP, Label

Json = Any

_PUBLIC = frozenset({"/admin/version", "/admin/storage", "/csrf-token"})
"""They name no job. Prefect's client asks them before others."""

_STATES = frozenset({"RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_STATE = ("type", "name", "message", "data")
_STATE_DETAILS = ("transition_id", "untrackable_result", "traceparent")
_OF_FLOW_RUN = ("flow_version", "empirical_policy")
_LOG = ("name", "level", "message", "timestamp")
_PAGE = ("limit", "offset", "sort")
_TASK_RUN = frozenset(
    {
        *("name", "task_key", "dynamic_key", "run_count", "tags", "task_inputs", "labels"),
        *("expected_start_time", "start_time", "end_time", "total_run_time"),
    }
)
_TASK_RUN_PREFIX = "prefect.task-run."
_EVENT = ("occurred", "event")
_ARTIFACT_PATH = re.compile(r"/artifacts/(?P<id>[0-9a-f-]{36})")
_ARTIFACT = ("key", "type", "data", "description")

REPORTED = frozenset(
    {
        *(Label.PHASE, Label.SNAKEMAKE_VERSION, Label.PROGRESS_DONE, Label.PROGRESS_TOTAL),
        *(Label.WORKFLOW_COMMIT, Label.WORK_SHA256),
        *(Label.ERROR_KIND, Label.ERROR_RULE, Label.ERROR_MESSAGE, Label.ERROR_RESOLUTION),
    }
)
"""What a job reports. The other labels are the facade's: they say whose files a job continues."""


@dataclass(frozen=True, slots=True)
class OwnRun:
    """The flow run of a job, as far as permissions depend on it."""

    id: UUID
    flow_id: UUID
    deployment_id: UUID | None
    blocks: Collection[str]
    """The Secret blocks that the job names, and its group may use."""
    files: Files
    """What it needs of the storage."""
    group: str = DEFAULT_GROUP
    first_job: UUID | None = None
    """The first of the jobs that resume each other, up to this one; None if it is the first."""


@dataclass(frozen=True, slots=True)
class PrefectRequest:
    """A request in the form in which Prefect gets it."""

    method: str
    path: str
    body: Json = None
    parameters: dict[str, str] = field(default_factory=dict)
    changes_run: bool = False
    """Whether it changes the flow run itself: no longer possible when it has ended."""
    artifact: UUID | None = None
    """The artifact that it changes, which must be the job's."""


class NotPermitted(Exception):
    """The job may not send this request."""


def permitted(
    method: str, path: str, body: Json, parameters: Mapping[str, str], run: OwnRun, rule_jobs: RuleJobs
) -> PrefectRequest:
    """What Prefect gets of this request. Raises `NotPermitted`."""
    path = f"/{path.strip('/')}"
    request = None
    try:
        match method:
            case "GET":
                request = _read(path, parameters, run)
            case "PATCH":
                request = _changed(path, body, run)
            case "POST":
                request = _posted(path, body, run, rule_jobs)
            case _:
                pass
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotPermitted("the body is not one that a job sends") from error
    if request is None:
        raise NotPermitted("jobs do not send this request")
    return request


def _read(path: str, parameters: Mapping[str, str], run: OwnRun) -> PrefectRequest | None:
    if path in _PUBLIC:
        return PrefectRequest("GET", path, parameters=dict(parameters))
    if path in (f"/flow_runs/{run.id}", f"/flows/{run.flow_id}", f"/deployments/{run.deployment_id}"):
        return PrefectRequest("GET", path)
    if path in {f"/block_types/slug/secret/block_documents/name/{name}" for name in run.blocks}:
        return PrefectRequest("GET", path, parameters={"include_secrets": "true"})
    return None


def _changed(path: str, body: Json, run: OwnRun) -> PrefectRequest | None:
    if path == f"/flow_runs/{run.id}":
        return PrefectRequest("PATCH", path, _known(body, _OF_FLOW_RUN), changes_run=True)
    if path == f"/flow_runs/{run.id}/labels":
        return PrefectRequest("PATCH", path, _labels(body), changes_run=True)
    if (found := _ARTIFACT_PATH.fullmatch(path)) is not None:
        return PrefectRequest("PATCH", path, _known(body, ("data",)), artifact=UUID(found["id"]))
    return None


def _posted(path: str, body: Json, run: OwnRun, rule_jobs: RuleJobs) -> PrefectRequest | None:
    match path:
        case "/flow_runs/filter":
            return PrefectRequest("POST", path, _flow_run_filter(body, run.id))
        case "/task_runs/filter" | "/task_runs/count":
            return PrefectRequest("POST", path, _task_run_filter(body, run.id))
        case "/logs":
            return PrefectRequest("POST", "/logs/", [_log(entry, run.id, rule_jobs) for entry in body])
        case "/artifacts":
            artifact = {**_known(body, _ARTIFACT), "flow_run_id": str(run.id)}
            return PrefectRequest("POST", "/artifacts/", artifact)
        case "/events":
            return PrefectRequest("POST", path, [_event(event, run.id) for event in body])
        case _ if path == f"/flow_runs/{run.id}/set_state":
            return PrefectRequest("POST", path, _state(body), changes_run=True)
        case _:
            return None


def _known(body: Json, fields: Collection[str]) -> Json:
    return {name: body[name] for name in fields if name in body}


def _labels(body: Json) -> Json:
    if not body.keys() <= REPORTED:
        raise NotPermitted("a job does not set these labels")
    return dict(body)


def _state(body: Json) -> Json:
    """Without `force`, so that Prefect's rules apply."""
    state = body["state"]
    if state["type"] not in _STATES:
        raise NotPermitted("a job does not put itself into this state")
    details = _known(state.get("state_details") or {}, _STATE_DETAILS)
    return {"state": {**_known(state, _STATE), "state_details": details}, "force": False}


def _flow_run_filter(body: Json, flow_run_id: UUID) -> Json:
    state = (body.get("flow_runs") or {}).get("state")
    return {"flow_runs": {"id": {"any_": [str(flow_run_id)]}, **({"state": state} if state else {})}}


def _task_run_filter(body: Json, flow_run_id: UUID) -> Json:
    """Prefect joins the filters of flow runs and of task runs by "and"."""
    return {
        "flow_runs": {"id": {"any_": [str(flow_run_id)]}},
        "task_runs": body.get("task_runs"),
        **_known(body, _PAGE),
    }


def _log(entry: Json, flow_run_id: UUID, rule_jobs: RuleJobs) -> Json:
    task_run_id = entry.get("task_run_id")
    if UUID(entry["flow_run_id"]) != flow_run_id:
        raise NotPermitted("an entry belongs to the log of another job")
    if task_run_id is not None and not rule_jobs.has(flow_run_id, UUID(task_run_id)):
        raise NotPermitted("an entry belongs to a rule job of another job")
    return {**_known(entry, _LOG), "flow_run_id": str(flow_run_id), "task_run_id": task_run_id}


def _event(event: Json, flow_run_id: UUID) -> Json:
    """A new state of a rule job, which Prefect records as the task run that the event names."""
    columns, state = event["payload"]["task_run"], event["payload"]["validated_state"]
    name, resource = event["event"], event["resource"]
    task_run_id = RuleJobs.id_of(flow_run_id, int(columns["dynamic_key"]))
    if not name.startswith(_TASK_RUN_PREFIX) or not columns.keys() <= _TASK_RUN:
        raise NotPermitted("an event is not a new state of a rule job")
    if resource["prefect.resource.id"] != f"{_TASK_RUN_PREFIX}{task_run_id}":
        raise NotPermitted("an event is about a rule job of another job")
    return {
        **_known(event, _EVENT),
        # Prefect skips events whose id it knows: with ids of their own, jobs can't take those of others.
        "id": str(uuid5(flow_run_id, str(event["id"]))),
        "resource": {key: str(value) for key, value in resource.items()},
        "related": [
            {
                "prefect.resource.id": f"prefect.flow-run.{flow_run_id}",
                "prefect.resource.role": "flow-run",
            }
        ],
        "payload": {
            "intended": {"from": None, "to": state["type"]},
            "initial_state": None,
            "validated_state": {
                **_known(state, ("type", "name", "message")),
                "state_details": {},
                "data": None,
            },
            "task_run": dict(columns),
        },
    }
