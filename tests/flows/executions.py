"""Executes workflows with the real Snakemake, and reads what it told."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from textwrap import dedent
from typing import Any, TypeVar
from uuid import uuid4

from flows.contract.environments import SoftwareSettings
from flows.contract.spec import ExecutionSpec
from flows.engines.engine import Execution
from flows.engines.snakemake import SnakemakeEngine
from flows.engines.software import Software
from flows.environments.environment import Environment
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    EngineExited,
    Outcome,
    RuleJobDropped,
    RuleJobPlanned,
    WorkflowEvent,
)
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace
from tests.support import WORKFLOWS

Kind = TypeVar("Kind", bound=WorkflowEvent)
HERE = Environment.of_this_process()
"""The tests' own environment has Snakemake, too."""

NO_SOFTWARE = Software(SoftwareSettings(), (), Path(gettempdir(), "no-software"))

React = Callable[[WorkflowEvent, Execution], None]


def new_workspace(home: Path) -> Workspace:
    """The directory of a new job; workflows may come from `WORKFLOWS` and from beside `home`."""
    workspace = Workspace(WorkspaceSettings(home=home, workflow_roots=(WORKFLOWS, home.parent)), uuid4())
    workspace.directory.mkdir(parents=True)
    return workspace


def write_workflow(directory: Path, snakefile: str) -> Path:
    """A workflow that is only a Snakefile; its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Snakefile").write_text(dedent(snakefile))
    return directory


def staged(workspace: Workspace, workflow: Path, **fields: Any) -> ExecutionSpec:
    """What to execute, its workflow already brought in."""
    spec = ExecutionSpec.model_validate({"workflow": {"path": str(workflow)}, "cores": 2} | fields)
    workspace.stage(spec)
    return spec


@dataclass(frozen=True)
class Run:
    """What an engine told of one execution, from first to last. A rule job is called `rule wildcard…`."""

    workspace: Workspace
    events: list[WorkflowEvent]

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def exit_code(self) -> int:
        (exited,) = self.of(EngineExited)
        return exited.exit_code

    @property
    def plan(self) -> dict[str, RuleJobPlanned]:
        """Every rule job that is part of the workflow in the end, by its name."""
        dropped = {event.job_id for event in self.of(RuleJobDropped)}
        newest = {event.job_id: event for event in self.of(RuleJobPlanned)}
        return {_name(event): event for event in newest.values() if event.job_id not in dropped}

    @property
    def edges(self) -> set[tuple[str, str]]:
        """(rule job, one that depends on it)."""
        names = {event.job_id: _name(event) for event in self.of(RuleJobPlanned)}
        return {(names[before], name) for name, event in self.plan.items() for before in event.depends_on}

    def started(self, name: str) -> list[AttemptStarted]:
        return [event for event in self.of(AttemptStarted) if event.job_id == self.plan[name].job_id]

    def finished(self, name: str) -> list[AttemptFinished]:
        return [event for event in self.of(AttemptFinished) if event.job_id == self.plan[name].job_id]

    def outcomes(self) -> dict[str, Outcome]:
        """How the last attempt of each rule job that ran has ended."""
        last = {event.job_id: event.outcome for event in self.of(AttemptFinished)}
        return {name: last[event.job_id] for name, event in self.plan.items() if event.job_id in last}

    def output_of(self, name: str, attempt: int = 1) -> str:
        """What an attempt wrote to its stdout and stderr."""
        log_path = self.started(name)[attempt - 1].log_path
        assert log_path is not None
        return Path(log_path).read_text()


def run(spec: ExecutionSpec, workspace: Workspace, react: React | None = None) -> Run:
    """Execute to the end; `react` sees every event as it happens."""
    events: list[WorkflowEvent] = []
    with SnakemakeEngine(HERE, NO_SOFTWARE).start(spec, workspace) as execution:
        for event in execution.events():
            events.append(event)
            if react is not None:
                react(event, execution)
    return Run(workspace, events)


def execute(workspace: Workspace, workflow: Path, **fields: Any) -> Run:
    """Stage a workflow and execute it to the end."""
    return run(staged(workspace, workflow, **fields), workspace)


def _name(planned: RuleJobPlanned) -> str:
    return " ".join([planned.rule, *planned.wildcards.values()])
