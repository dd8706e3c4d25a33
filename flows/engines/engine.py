"""The interface of engines, which execute workflows: `Engine.start` returns an `Execution`.

An execution is an iterator of workflow events that ends with `EngineExited`. Failed rules are reported
by events; an exception means that the engine itself failed.

    EngineError
    └── EngineVanishedError   the engine's process ended without reporting an end
"""

from collections.abc import Iterator
from typing import Protocol, Self

from flows.contract.spec import ExecutionSpec
from flows.snakemake_process.events import WorkflowEvent
from flows.workspace.workspace import Workspace


class EngineError(Exception):
    """The engine failed; the workflow is not to blame."""


class EngineVanishedError(EngineError):
    """The engine's process ended without reporting an end."""


class Execution(Protocol):
    """A running workflow. Leaving the context ends all its processes, and waits for that."""

    def events(self) -> Iterator[WorkflowEvent]:
        """Every event as it happens; the last one is `EngineExited`. Raises `EngineError`."""

    def terminate(self) -> None:
        """Request an early end. Events continue until all processes are gone. Thread-safe."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


class Engine(Protocol):
    """Executes workflows."""

    def start(self, spec: ExecutionSpec, workspace: Workspace) -> Execution: ...
