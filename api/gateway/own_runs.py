"""The flow run of a job that sends requests, read from Prefect."""

import re
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from api.gateway.permissions import OwnRun
from api.gateway.storage_access import Files
from flows.contract.secrets import SecretSettings
from flows.contract.spec import DEFAULT_GROUP, Label

_KEPT_SECONDS = 30.0
_BUNDLE = re.compile("sha256:[0-9a-f]{64}")
_MOST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class _Known:
    run: OwnRun
    read_at: float


class OwnRuns:
    """What permissions depend on does not change while a job runs, so it is kept for some seconds."""

    def __init__(self, client: PrefectClient, settings: SecretSettings) -> None:
        self._client = client
        self._settings = settings
        self._known: dict[UUID, _Known] = {}

    async def get(self, flow_run_id: UUID) -> OwnRun:
        """Raises `ObjectNotFound` when the job was removed."""
        known = self._known.get(flow_run_id)
        if known is None or time.monotonic() - known.read_at > _KEPT_SECONDS:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            flow_run = await self._client.read_flow_run(flow_run_id)
            known = self._known[flow_run_id] = _Known(self._own(flow_run), time.monotonic())
        return known.run

    async def final_state(self, flow_run_id: UUID) -> dict[str, Any] | None:
        """The state with which the job has ended, read now; None while it has not."""
        state = (await self._client.read_flow_run(flow_run_id)).state
        return state.model_dump(mode="json") if state is not None and state.is_final() else None

    def _own(self, flow_run: FlowRun) -> OwnRun:
        named = flow_run.parameters.get("secrets")
        names = set(map(str, named.values())) if isinstance(named, dict) else set()
        group, first = flow_run.work_queue_name or DEFAULT_GROUP, flow_run.labels.get(Label.WORK)
        return OwnRun(
            flow_run.id,
            flow_run.flow_id,
            flow_run.deployment_id,
            names & self._settings.blocks_of(group),
            _files_of(flow_run),
            group,
            UUID(str(first)) if first else None,
        )


def _files_of(flow_run: FlowRun) -> Files:
    """From what the facade has written: the job itself can't change these labels and parameters."""
    resumed, workflow = flow_run.labels.get(Label.RESUMES), flow_run.parameters.get("workflow")
    bundle = str(workflow.get("bundle")) if isinstance(workflow, dict) else ""
    # A policy would take more than a checksum for a pattern.
    is_bundle = _BUNDLE.fullmatch(bundle) is not None
    return Files(flow_run.id, UUID(str(resumed)) if resumed else None, bundle if is_bundle else None)
