"""The flow run in Prefect that shows a run of Snakemake.

It belongs to a deployment, which the service calls a group, and to no work queue: no worker takes it,
and it takes no place of a group's limit.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

from .prefect_api import PrefectApi, Rejected
from .run import Ending
from .task_runs import JsonObject

FLOW_NAME = "snakemake-job"
ATTACHED_GROUP = "attached"
"""The group of runs that name no other one. It is made if it is missing."""

_RESOURCE_ID = "prefect.resource.id"
_ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]
_PAGE = 200


class FlowRun:
    """Every method may raise `Unavailable` and `Rejected`. A request that is repeated changes nothing."""

    def __init__(self, api: PrefectApi, name: str, group: str) -> None:
        self._api, self._name, self._group = api, name, group
        self._key = f"attached:{uuid4()}"
        self._id: UUID | None = None

    @property
    def is_made(self) -> bool:
        return self._id is not None

    @property
    def id(self) -> UUID:
        """Only after `make`."""
        assert self._id is not None
        return self._id

    def make(self, labels: Mapping[str, Any]) -> None:
        """Create it, running."""
        flow_id, deployment_id = self._deployment()
        body = {
            "name": self._name,
            "flow_id": flow_id,
            "deployment_id": deployment_id,
            "labels": dict(labels),
            "idempotency_key": self._key,
            "state": {"type": "RUNNING", "name": "Running"},
        }
        self._id = UUID(self._api.post("/flow_runs/", body)["id"])

    def send_events(self, events: Sequence[JsonObject]) -> None:
        self._api.post("/events", events)

    def send_logs(self, entries: Sequence[JsonObject]) -> None:
        self._api.post("/logs/", entries)

    def show_progress(self, done: int, total: int) -> None:
        self._label({"snakemake.progress.done": done, "snakemake.progress.total": total})

    def beat(self) -> None:
        """Any update is a sign of life: the service watches when the server has last updated the flow run."""
        self._label({"snakemake.attached.beat": int(time.time())})

    def state_type(self) -> str:
        return str(self._api.get(f"/flow_runs/{self.id}")["state_type"])

    def has_recorded(self, event: JsonObject) -> bool:
        """Whether the server has recorded a state of a task run that is at least as new."""
        task_run_id = event["resource"][_RESOURCE_ID].removeprefix("prefect.task-run.")
        body = {"task_runs": {"id": {"any_": [task_run_id]}}, "limit": 1}
        found = self._api.post("/task_runs/filter", body)
        return bool(found) and _moment(found[0]["state"]["timestamp"]) >= _moment(event["occurred"])

    def count_ended(self) -> int:
        return int(self._api.post("/task_runs/count", self._ended()))

    def ended_task_runs(self) -> set[UUID]:
        ids: set[UUID] = set()
        while True:
            page = self._api.post(
                "/task_runs/filter", {**self._ended(), "sort": "ID_DESC", "limit": _PAGE, "offset": len(ids)}
            )
            ids.update(UUID(task_run["id"]) for task_run in page)
            if len(page) < _PAGE:
                return ids

    def revive(self) -> None:
        """Let it run again."""
        self._set_state("RUNNING", "Running", "It is alive after all.")

    def end(self, ending: Ending) -> None:
        if ending.labels:
            self._label(ending.labels)
        self._set_state(ending.type, ending.name, ending.message)

    def _deployment(self) -> tuple[str, str]:
        """The ids of the flow and of the group's deployment. Raises `Rejected` if there is no such group."""
        try:
            found = self._api.get(f"/deployments/name/{FLOW_NAME}/{quote(self._group, safe='')}")
        except Rejected as error:
            if not error.is_not_found:
                raise
            if self._group != ATTACHED_GROUP:
                raise Rejected(f"there is no group {self._group!r}", error.status) from None
            flow = self._api.post("/flows/", {"name": FLOW_NAME})
            found = self._api.post("/deployments/", {"name": ATTACHED_GROUP, "flow_id": flow["id"]})
        return found["flow_id"], found["id"]

    def _label(self, labels: Mapping[str, Any]) -> None:
        self._api.patch(f"/flow_runs/{self.id}/labels", dict(labels))

    def _set_state(self, kind: str, name: str, message: str) -> None:
        """By force, because Prefect's rules are for its own engine."""
        state = {"type": kind, "name": name, "message": message}
        self._api.post(f"/flow_runs/{self.id}/set_state", {"state": state, "force": True})

    def _ended(self) -> JsonObject:
        return {
            "flow_runs": {"id": {"any_": [str(self.id)]}},
            "task_runs": {"state": {"type": {"any_": _ENDED}}},
        }


def _moment(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp)
