"""Copies a workflow into a job's directory: from a directory, a bundle or a git repository."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows.contract.bundles import unpack_bundle
from flows.contract.sources import WorkflowSource
from flows.contract.spec import FLOW_NAME
from flows.contract.storage import BlobNotFound, Storage, StorageError, bundle_key
from flows.contract.untrusted_tree import Refused
from flows.contract.workflow_roots import check_workflow_directory, check_workflow_path
from flows.workspace.copying import CopyFailed, NoSpace, copy_tree
from flows.workspace.git import check_out
from flows.workspace.git_credentials import NO_CREDENTIALS, Credentials
from flows.workspace.settings import WorkspaceSettings

_NOT_COPIED = frozenset({".snakemake", ".git"})
_RECORDS = frozenset({"metadata", "metadata.db", "incomplete"})
"""What Snakemake knows about the results in a directory, in its `.snakemake`."""

_MAKE_READABLE = "Make the workflow's directory readable for the service."


class StageError(Exception):
    """The workflow can't be staged; `resolution` says what the submitter can do."""

    def __init__(self, message: str, resolution: str) -> None:
        super().__init__(message)
        self.resolution = resolution


@dataclass(frozen=True, slots=True)
class Staged:
    """The result of staging."""

    commit: str | None = None
    """The commit, if the workflow came from a git repository."""
    notes: tuple[str, ...] = ()
    """Warnings for the submitter."""


class Staging:
    """Creates a job's `work` from the source that its spec names."""

    def __init__(
        self,
        settings: WorkspaceSettings,
        storage: Storage,
        group: str,
        report: Callable[[str], None],
        credentials: Credentials = NO_CREDENTIALS,
    ) -> None:
        self._settings = settings
        self._group = group
        self._report = report
        self._storage = storage
        self._credentials = credentials
        self._home = settings.home.resolve()

    def bring_in(self, workflow: WorkflowSource, work: Path) -> Staged:
        """Create `work` atomically. Raises `StageError`, `StorageError` and `SecretUnusable`."""
        unfinished = work.with_suffix(".partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        staged = Staged()
        try:
            match workflow:
                case WorkflowSource(bundle=str(bundle)):
                    self._unpack(bundle, workflow.subdir or ".", unfinished)
                case WorkflowSource(git=str(address)):
                    checkout = check_out(
                        address,
                        workflow.ref,
                        workflow.subdir or ".",
                        unfinished,
                        self._settings,
                        _NOT_COPIED,
                        self._credentials,
                    )
                    staged = Staged(checkout.commit, checkout.notes)
                case WorkflowSource(name=str(name)):
                    raise StageError(
                        f"only the jobs API can look up the registered workflow '{name}'",
                        f"Submit the job with POST /jobs, or run the deployment '{FLOW_NAME}/{name}'.",
                    )
                case _:
                    self._copy(self._source(workflow.path or ""), unfinished)
        except Refused as refusal:
            raise StageError(str(refusal), refusal.resolution) from refusal
        unfinished.replace(work)
        return staged

    def _unpack(self, bundle: str, subdirectory: str, directory: Path) -> None:
        with tempfile.TemporaryFile(dir=directory.parent) as archive:
            checksum = hashlib.sha256()
            try:
                for chunk in self._storage.read(bundle_key(bundle)):
                    checksum.update(chunk)
                    archive.write(chunk)
            except BlobNotFound:
                raise StageError(
                    f"there is no bundle {bundle}", "Upload it with PUT /bundles, and submit the job again."
                ) from None
            if f"sha256:{checksum.hexdigest()}" != bundle:
                raise StorageError(
                    f"The bundle {bundle} is damaged in the storage. Remove it there, and upload it again."
                )
            unpack_bundle(archive, directory, self._settings, subdirectory, _NOT_COPIED)

    def _copy(self, source: Path, directory: Path) -> None:
        readable = (*self._settings.workflow_roots, *self._settings.data_roots_of(self._group))
        try:
            copy_tree(source, directory, partial(self._is_left_out, source), readable, self._report)
        except CopyFailed as error:
            raise StageError(
                str(error), "Remove it from the workflow's directory, or make it readable for the service."
            ) from error
        except NoSpace as error:
            raise StageError(
                str(error), "Leave data out of the workflow's directory, and link it with `inputs`."
            ) from error
        except OSError as error:
            raise StageError(f"the workflow can't be copied: {error.strerror}", _MAKE_READABLE) from error

    def _is_left_out(self, source: Path, path: Path) -> bool:
        """Whether `path` belongs to Git, to Snakemake except for its records, or to JOBS_HOME."""
        match path.parts:
            case (*_, ".snakemake"):
                return False
            case (*_, ".snakemake", name):
                return name not in _RECORDS
        return path.name in _NOT_COPIED or source / path == self._home

    def _source(self, path: str) -> Path:
        directory = check_workflow_path(path, self._settings.workflow_roots, self._home)
        check_workflow_directory(path, directory)
        return directory
