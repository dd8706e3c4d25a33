"""Which directories of a machine a job may use as its workflow.

The facade checks when a job is submitted, so that a mistake is reported at once; the worker checks
again when it stages the workflow, because it may be another machine and a later time.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from flows.contract.spec import SNAKEFILE_NAMES
from flows.contract.untrusted_tree import Refused

_NAME_DIRECTORY = "Give the absolute path of the directory that holds the workflow."


class WorkflowPathRefused(Refused):
    """No workflow may be used from this path; `resolution` says what the submitter can do."""


class SnakefileMissing(Refused):
    """The workflow's directory does not hold the Snakefile."""


def check_workflow_path(path: str, roots: Sequence[Path], home: Path) -> Path:
    """The directory that `path` leads to, with symlinks and `..` resolved. It need not exist.

    It must be under one of `roots` and outside of `home`. Raises `WorkflowPathRefused`.
    """
    if not os.path.isabs(path):
        raise WorkflowPathRefused(f"the workflow's path '{path}' is not absolute", _NAME_DIRECTORY)
    try:
        directory = Path(os.path.realpath(path))
    except ValueError as error:  # a NUL, or a name that the file system can't encode
        raise WorkflowPathRefused(
            f"the workflow's path {path!r} is invalid: {error}", _NAME_DIRECTORY
        ) from error
    if root_above(directory, roots) is None:
        raise WorkflowPathRefused(
            f"the workflow's path '{path}' is not under a workflow root of this server",
            f"Put the workflow under one of: {', '.join(map(str, roots)) or '(no root is set)'}. "
            "The operator sets the roots with JOBS_WORKFLOW_ROOTS.",
        )
    if root_above(directory, (home,)) is not None:
        raise WorkflowPathRefused(
            f"the workflow's path '{path}' is inside the directory where the service keeps its jobs",
            "Give a directory outside JOBS_HOME. To continue an earlier job, resume it.",
        )
    return directory


def check_workflow_directory(path: str, directory: Path) -> None:
    """Raises `WorkflowPathRefused` unless `directory`, to which `path` leads, exists."""
    # With os.path: pathlib raises for a name that is too long.
    if not os.path.isdir(directory):
        raise WorkflowPathRefused(f"the workflow's path '{path}' is not a directory", _NAME_DIRECTORY)


def find_snakefile(directory: Path, snakefile: str | None) -> Path:
    """The Snakefile, relative to `directory`: `snakefile`, or the first of Snakemake's usual names.

    Raises `SnakefileMissing`.
    """
    candidates = (snakefile,) if snakefile else SNAKEFILE_NAMES
    for candidate in candidates:
        if os.path.isfile(directory / candidate):
            return Path(candidate)
    raise SnakefileMissing(
        f"the workflow's directory has no Snakefile: looked for {', '.join(candidates)}",
        "Set `snakefile` to the path of the Snakefile, relative to the workflow's directory.",
    )


def root_above(directory: Path, roots: Sequence[Path]) -> Path | None:
    """The one of `roots` that the resolved `directory` is under, symlinks of the root resolved too."""
    return next((root for root in roots if directory.is_relative_to(os.path.realpath(root))), None)
