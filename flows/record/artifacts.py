"""Sends a job's artifacts to Prefect. Nothing depends on them: after an error, one is missing."""

import logging
import re
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import orjson
from prefect.client.orchestration import SyncPrefectClient

from flows.record import pace
from flows.record.task_runs import JsonObject

_NO_KEY = re.compile(r"[^a-z0-9]+")

logger = logging.getLogger("prefect.flow_runs.artifacts")


@dataclass
class Artifacts:
    """The artifacts of one job."""

    client: SyncPrefectClient
    flow_run_id: UUID
    workflow: str = ""
    """The registered workflow: its artifacts have keys of their own, so that Prefect lists their history."""

    def add(self, kind: str, name: str, data: Any, description: str = "") -> UUID | None:
        """Create an artifact of Prefect's `kind`. Returns its id; None if Prefect does not take it."""
        body = {
            "key": key_of(self.workflow, name),
            "type": kind,
            "data": data,
            "description": description or None,
            "flow_run_id": str(self.flow_run_id),
        }
        created = self._send("POST", "/artifacts/", body)
        return None if created is None else UUID(created.json()["id"])

    def change(self, artifact_id: UUID, data: Any) -> None:
        self._send("PATCH", f"/artifacts/{artifact_id}", {"data": data})

    def _send(self, method: Any, path: Any, body: JsonObject) -> httpx.Response | None:
        try:
            return self.client.request(
                method, path, content=orjson.dumps(body), headers={"Content-Type": "application/json"}
            )
        except httpx.HTTPError as error:
            logger.warning("Can't show an artifact of the job in Prefect (%s).", error)
            return None


class ProgressArtifact:
    """A bar in the Prefect UI that moves while the job runs."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._id: UUID | None = None
        self._shown: float | None = None
        self._began = time.monotonic()
        self._next = self._began + pace.bar(0)

    def show(self, done: int, total: int) -> None:
        """Show these numbers of rule jobs, if the job and the last ones are old enough."""
        now = time.monotonic()
        if total and now >= self._next:
            self._next = now + pace.bar(now - self._began)
            self._show(done, total)

    def finish(self, done: int, total: int) -> None:
        """Show the last numbers, if any were shown."""
        if total and self._id is not None:
            self._show(done, total)

    def _show(self, done: int, total: int) -> None:
        percent = round(100 * done / total, 1)
        if percent == self._shown:
            return
        self._shown = percent
        if self._id is None:
            self._id = self._artifacts.add("progress", "progress", percent, "Rule jobs that have completed.")
        else:
            self._artifacts.change(self._id, percent)


def key_of(workflow: str, name: str) -> str:
    """A key as Prefect allows it: lower-case letters, digits and hyphens."""
    return "-".join(part for part in _NO_KEY.split(f"{workflow}-{name}".lower()) if part)
