"""Which directories on a machine a job may use as its workflow.

The API checks when a job is submitted, to report a mistake at once. The worker checks again when it
stages the workflow, because it may run on another machine, and things may have changed since.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from flows.contract.spec import SNAKEFILE_NAMES
from flows.contract.untrusted_tree import Refused

_NAME_DIRECTORY = "Set `workflow.path` to the absolute path of the directory that contains the workflow."


class WorkflowPathRefused(Refused):
    """Workflows may not come from this path; `resolution` says what the submitter can do."""


class SnakefileMissing(Refused):
    """The workflow's directory does not contain the Snakefile."""


def check_workflow_path(path: str, roots: Sequence[Path], home: Path) -> Path:
    """The directory that `path` leads to, with symlinks and `..` resolved. It does not have to exist.

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
            "Set it to a directory outside JOBS_HOME. To continue an earlier job, resume it.",
        )
    return directory


def check_workflow_directory(path: str, directory: Path) -> None:
    """Raises `WorkflowPathRefused` unless `directory`, to which `path` leads, exists."""
    # With os.path: pathlib raises for a name that is too long.
    if not os.path.isdir(directory):
        raise WorkflowPathRefused(f"the workflow's path '{path}' is not a directory", _NAME_DIRECTORY)


def find_snakefile(directory: Path, snakefile: str | None) -> Path:
    """The Snakefile, relative to `directory`: `snakefile`, or the first of Snakemake's default names.

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
    """The root that the resolved `directory` is under, or None. Symlinks in roots are resolved, too."""
    return next((root for root in roots if directory.is_relative_to(os.path.realpath(root))), None)
