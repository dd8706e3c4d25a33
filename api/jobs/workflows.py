"""What can be told of a workflow before Prefect is asked: whether it may be used, and is there."""

import os
from collections.abc import Sequence
from pathlib import Path

from api.settings import Settings
from api.web.problems import FieldProblem, WorkflowRefused
from flows.contract.addresses import AddressRefused, check_git_address
from flows.contract.spec import SNAKEFILE_NAMES, EngineName, ExecutionSpec, WorkflowSource
from flows.contract.storage import Storage, bundle_key


def check_workflow(spec: ExecutionSpec, settings: Settings, storage: Storage) -> None:
    """Raises `WorkflowRefused`, and `flows.contract.storage.StorageError` when a bundle can't be looked for.

    No git server is asked: it might take its time, and the worker asks it anyway.
    """
    if spec.engine is not EngineName.SNAKEMAKE:
        return
    match spec.workflow:
        case WorkflowSource(path=str(path)):
            _check_path(path, spec.snakefile, settings.workflow_roots, settings.home)
        case WorkflowSource(bundle=str(bundle)):
            _check_bundle(bundle, storage)
        case WorkflowSource(git=str(address)):
            _check_address(address, settings)
        case _:
            pass


def _check_bundle(bundle: str, storage: Storage) -> None:
    if storage.size(bundle_key(bundle)) is None:
        raise _refused(
            f"There is no bundle {bundle}.",
            "Send it with PUT /bundles, and submit the job again.",
            "#/workflow/bundle",
        )


def _check_address(address: str, settings: Settings) -> None:
    try:
        check_git_address(address, settings)
    except AddressRefused as refusal:
        detail = str(refusal)
        raise _refused(
            f"{detail[:1].upper()}{detail[1:]}.", refusal.resolution, "#/workflow/git"
        ) from refusal


def _check_path(path: str, snakefile: str | None, roots: Sequence[Path], home: Path) -> None:
    """The path must lie under one of `roots`, outside of `home`, and have its Snakefile.

    A root that this machine does not have (the worker may be another one) is trusted as
    far as names go; the worker looks again when it stages the workflow.

    os.path, not pathlib: it answers False instead of raising, whatever the name is.
    """
    if not os.path.isabs(path):
        raise _refused(f"The workflow's path '{path}' is not absolute.", "Give the whole path.")
    root = _root_above(path, roots)
    if root is None:
        raise _refused(
            f"The workflow's path '{path}' does not lie under a workflow root of this server.",
            f"Put the workflow under one of: {', '.join(map(str, roots)) or '(no root is set)'}; "
            "the operator sets them with JOBS_WORKFLOW_ROOTS.",
        )
    if _root_above(path, (home,)) is not None:
        raise _refused(
            f"The workflow's path '{path}' lies where the service keeps its jobs.",
            "Name a directory outside of JOBS_HOME; to go on with a job, resume it.",
        )
    if not os.path.isdir(root):
        return
    if not os.path.isdir(path):
        raise _refused(
            f"The workflow's path '{path}' is not a directory.", "Give the directory that holds the workflow."
        )
    _check_snakefile(path, snakefile)


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
