"""What people look at in the Prefect UI when a job has ended: its summary, its outputs, its plots."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType

from flows.contract.manifest import Manifest
from flows.contract.presentation import Links, PresentationSettings
from flows.contract.spec import ExecutionSpec, Label
from flows.diagnosis import JobError
from flows.record.artifacts import Artifacts
from flows.record.images import images_of
from flows.record.recorder import Recorder
from flows.summary import EndedJob, size, summary_of
from flows.workspace.workspace import Workspace

_LISTED_OUTPUTS = 500

logger = logging.getLogger("prefect.flow_runs.presentation")


@dataclass
class Presentation:
    """Of one job."""

    artifacts: Artifacts
    links: Links | None
    labels: Mapping[str, Any]
    """Of the flow run, as it began."""
    _began: float = field(default_factory=time.monotonic)
    _shown: StateType | None = None

    @classmethod
    def of(cls, flow_run: FlowRun, client: SyncPrefectClient) -> Self | None:
        """None if the operator wants none, and for a job that only describes its workflow."""
        settings = PresentationSettings()
        if not settings.artifacts or Label.DESCRIBES in flow_run.labels:
            return None
        workflow = str(flow_run.labels.get(Label.WORKFLOW_NAME, ""))
        return cls(Artifacts(client, flow_run.id, workflow), settings.links(flow_run.id), flow_run.labels)

    def show_end(
        self,
        state: State[Any],
        error: JobError | None,
        spec: ExecutionSpec,
        workspace: Workspace,
        recorder: Recorder,
    ) -> None:
        """Show a job that ends in `state`, once. Never raises: the job has its result already."""
        if self._shown is state.type:
            return
        self._shown = state.type
        try:
            self._show_end(self._ended(state, error, spec, workspace, recorder), workspace, recorder)
        except Exception:
            logger.exception("Can't show the summary of the job in Prefect.")

    def _ended(
        self,
        state: State[Any],
        error: JobError | None,
        spec: ExecutionSpec,
        workspace: Workspace,
        recorder: Recorder,
    ) -> EndedJob:
        return EndedJob(
            status="Dry run" if spec.dry_run and state.is_completed() else str(state.name),
            message=recorder.redaction.text(state.message or ""),
            seconds=time.monotonic() - self._began,
            rule_jobs=recorder.mirror.rule_jobs(),
            facts={**self.labels, **{str(label): value for label, value in recorder.labels.items()}},
            error=error,
            is_dry_run=spec.dry_run,
            outputs=_manifest(workspace.manifest).outputs,
            links=self.links,
        )

    def _show_end(self, job: EndedJob, workspace: Workspace, recorder: Recorder) -> None:
        self.artifacts.add("markdown", "summary", summary_of(job))
        if job.results:
            rows = [_row(item.path, item.size, self.links) for item in job.results[:_LISTED_OUTPUTS]]
            self.artifacts.add("table", "outputs", rows, f"{len(job.results)} files.")
        for image in images_of(workspace.work, workspace.files_of(recorder.mirror.reported())):
            self.artifacts.add("image", image.path, image.address, image.path)


def _row(path: str, number: int, links: Links | None) -> dict[str, str]:
    address = {} if links is None else {"address": links.output(path)}
    return {"file": path, "size": size(number), **address}


def _manifest(file: Path) -> Manifest:
    """Empty if the job has published nothing."""
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except (OSError, ValueError):
        return Manifest()
