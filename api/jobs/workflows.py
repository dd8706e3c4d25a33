"""Checks a workflow before Prefect is asked: whether it may be used, and exists."""

import os
from pathlib import Path

from api.settings import Settings
from api.web.problems import FieldProblem, WorkflowRefused, sentence
from flows.contract.addresses import AddressRefused, check_git_address
from flows.contract.sources import WorkflowSource
from flows.contract.spec import EngineName, JobSpec
from flows.contract.storage import Storage, bundle_key
from flows.contract.workflow_links import LinkRefused, check_links
from flows.contract.workflow_roots import (
    SnakefileMissing,
    WorkflowPathRefused,
    check_workflow_directory,
    check_workflow_path,
    find_snakefile,
    root_above,
)

_PATH = "#/workflow/path"
_NOT_COPIED = frozenset({".git", ".snakemake"})


def check_workflow(spec: JobSpec, settings: Settings, storage: Storage) -> None:
    """Raises `WorkflowRefused`, and `flows.contract.storage.StorageError` when a bundle can't be looked up.

    Asks no git server: it might be slow, and the worker asks it anyway.
    """
    if spec.engine is not EngineName.SNAKEMAKE:
        return
    match spec.workflow:
        case WorkflowSource(path=str(path)):
            _check_path(path, spec, settings)
        case WorkflowSource(bundle=str(bundle)):
            _check_bundle(bundle, storage)
        case WorkflowSource(git=str(address)):
            _check_address(address, settings)
        case _:
            pass


def _check_path(path: str, spec: JobSpec, settings: Settings) -> None:
    """The worker checks again when it stages the workflow, and may be another machine.

    So a path is accepted by its name alone where this machine does not have the root.
    """
    try:
        directory = check_workflow_path(path, settings.workflow_roots, settings.home)
        if not _has_root(directory, settings):
            return
        check_workflow_directory(path, directory)
        if spec.snakefile not in spec.files:
            find_snakefile(directory, spec.snakefile)
        readable = (*settings.workflow_roots, *settings.data_roots_of(spec.group))
        check_links(directory, readable, _NOT_COPIED)
    except WorkflowPathRefused as refusal:
        raise _refused(sentence(refusal), refusal.resolution, _PATH) from refusal
    except LinkRefused as refusal:
        raise _refused(sentence(refusal), refusal.resolution, _PATH) from refusal
    except SnakefileMissing as refusal:
        pointer = "#/snakefile" if spec.snakefile else _PATH
        raise _refused(sentence(refusal), refusal.resolution, pointer) from refusal


def _has_root(directory: Path, settings: Settings) -> bool:
    root = root_above(directory, settings.workflow_roots)
    return root is not None and os.path.isdir(root)


def _check_bundle(bundle: str, storage: Storage) -> None:
    if storage.size(bundle_key(bundle)) is None:
        raise _refused(
            f"There is no bundle {bundle}.",
            "Send it with PUT /bundles, then submit the job again.",
            "#/workflow/bundle",
        )


def _check_address(address: str, settings: Settings) -> None:
    try:
        check_git_address(address, settings)
    except AddressRefused as refusal:
        raise _refused(sentence(refusal), refusal.resolution, "#/workflow/git") from refusal


def _refused(detail: str, resolution: str, pointer: str) -> WorkflowRefused:
    return WorkflowRefused(detail, resolution, [FieldProblem(pointer=pointer, message=detail)])
