"""Creates the software of a workflow before its first job needs it."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from flows import diagnosis
from flows.contract.environments import EnvironmentSettings, SoftwareSettings
from flows.contract.sources import WorkflowSource
from flows.contract.spec import EnvironmentSpec, ExecutionSpec, SoftwareMethod
from flows.engines.snakemake import SnakemakeEngine
from flows.engines.software import Software
from flows.environments.making import Environments
from flows.snakemake_process.events import EngineExited, ErrorRaised, Message
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace

_SHOWN_CHARACTERS = 2_000


class NotPrepared(Exception):
    """The software could not be created; the message says why and what to do."""


def prepare(
    workflow: Path,
    group: str,
    methods: Sequence[SoftwareMethod],
    environment: EnvironmentSpec | None,
    home: Path,
    say: Callable[[str], None],
) -> None:
    """Create all software that the rules of `workflow` declare, in the cache of `group`.

    This copies the workflow, and runs no rule. Raises `NotPrepared`, and `EnvironmentFailure`.
    """
    environments = Environments(EnvironmentSettings(), home, say)
    software = replace(Software.of_group(SoftwareSettings(), methods, home, group), only_prepare=True)
    with tempfile.TemporaryDirectory(prefix="prepare-") as directory:
        workflow = workflow.resolve()
        settings = WorkspaceSettings(home=Path(directory), workflow_roots=(workflow,))
        workspace = Workspace(settings, uuid4())
        source = WorkflowSource(path=str(workflow))
        spec = ExecutionSpec(workflow=source, software=tuple(methods), environment=environment)
        workspace.stage(spec)
        engine = SnakemakeEngine(environments.get(environments.wanted(environment, workspace.work)), software)
        errors: list[ErrorRaised] = []
        with engine.start(spec, workspace) as execution:
            for event in execution.events():
                match event:
                    case Message():
                        say(event.text)
                    case ErrorRaised():
                        errors.append(event)
                    case EngineExited() if event.exit_code:
                        log = workspace.snakemake_log.read_text(errors="replace")[-_SHOWN_CHARACTERS:]
                        error = diagnosis.of_workflow(errors, event.exit_code, log)
                        raise NotPrepared(f"{error.message}\n{error.resolution}")
                    case _:
                        pass
