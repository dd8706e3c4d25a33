"""What executes a job's workflow, behind one seam: `Engine.start` gives an `Execution`.

An execution is an iterator of workflow events that ends with `EngineExited`. Events report whether
rules fail; an exception means that the engine itself could not do its work.

    EngineError
    └── EngineVanishedError   the engine's process ended without reporting an end
"""

from collections.abc import Iterator
from typing import Protocol, Self

from flows.contract.spec import ExecutionSpec
from flows.snakemake_process.events import WorkflowEvent
from flows.workspace.workspace import Workspace


class EngineError(Exception):
    """The engine could not do its work; says nothing about the workflow."""


class EngineVanishedError(EngineError):
    """The engine's process ended without reporting an end."""


class Execution(Protocol):
    """A running workflow. Leaving the context ends whatever of it is still alive, and waits for that."""

    def events(self) -> Iterator[WorkflowEvent]:
        """Every event as it happens; the last one is `EngineExited`. Raises `EngineError`."""

    def terminate(self) -> None:
        """Ask for an early end. The events go on until everything is gone. Safe from any thread."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


class Engine(Protocol):
    """Executes workflows."""

    def start(self, spec: ExecutionSpec, workspace: Workspace) -> Execution: ...
