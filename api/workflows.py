"""Refuses a job at once whose workflow is not there, where the facade can see that."""

import os
from collections.abc import Sequence
from pathlib import Path

from api.problems import FieldProblem, WorkflowRefused
from flows.spec import SNAKEFILE_NAMES, EngineName, ExecutionSpec


def check_workflow(spec: ExecutionSpec, roots: Sequence[Path]) -> None:
    """Raises `WorkflowRefused` unless the workflow lies under one of `roots` and has its Snakefile.

    A root that this machine does not have (the worker may be another one) is trusted as
    far as names go; the worker looks again when it stages the workflow.

    os.path, not pathlib: it answers False instead of raising, whatever the name is.
    """
    if spec.engine is not EngineName.SNAKEMAKE or spec.workflow is None:
        return
    path = spec.workflow.path
    if not os.path.isabs(path):
        raise _refused(f"The workflow's path '{path}' is not absolute.", "Give the whole path.")
    root = _root_above(path, roots)
    if root is None:
        raise _refused(
            f"The workflow's path '{path}' does not lie under a workflow root of this server.",
            f"Put the workflow under one of: {', '.join(map(str, roots)) or '(no root is set)'}; "
            "the operator sets them with JOBS_WORKFLOW_ROOTS.",
        )
    if not os.path.isdir(root):
        return
    if not os.path.isdir(path):
        raise _refused(
            f"The workflow's path '{path}' is not a directory.", "Give the directory that holds the workflow."
        )
    _check_snakefile(path, spec.snakefile)


def _root_above(path: str, roots: Sequence[Path]) -> Path | None:
    """The root that `path` lies under once every symlink and '..' is resolved."""
    resolved = Path(os.path.realpath(path))
    return next((root for root in roots if resolved.is_relative_to(os.path.realpath(root))), None)


def _check_snakefile(path: str, snakefile: str | None) -> None:
    candidates = (snakefile,) if snakefile else SNAKEFILE_NAMES
    if any(os.path.isfile(os.path.join(path, candidate)) for candidate in candidates):
        return
    raise _refused(
        f"The workflow's directory '{path}' has no Snakefile: looked for {', '.join(candidates)}.",
        "Set `snakefile` to the path of the Snakefile, relative to the workflow's directory.",
        "#/snakefile" if snakefile else "#/workflow/path",
    )


def _refused(detail: str, resolution: str, pointer: str = "#/workflow/path") -> WorkflowRefused:
    return WorkflowRefused(detail, resolution, [FieldProblem(pointer=pointer, message=detail)])
