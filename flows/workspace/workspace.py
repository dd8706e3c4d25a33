"""A job's directory: brings the workflow in, and writes down and publishes what came out.

JOBS_HOME/jobs/<job id>/
  work/           a copy of the workflow's directory; Snakemake's working directory. Of a job that
                  resumes another, a link to that one's
  work.lock       locked by the job that runs in work/
  config.json     what the job spec overrides of the workflow's configuration
  snakemake.log   stdout and stderr of Snakemake
  report.html     Snakemake's report, if the job asks for one
  events.jsonl    every workflow event, one JSON line each
  flow.pid        locked by the job's flow process as long as it lives
  outputs.json    the manifest: path, size and checksum of every output; the Snakefile that ran
JOBS_HOME/cache/  outputs that jobs share: Snakemake's between-workflow cache
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from uuid import UUID

from pydantic_settings import SettingsConfigDict

from flows.contract.addresses import SourceSettings
from flows.contract.bundles import BundleLimits, unpack_bundle
from flows.contract.job_files import open_file, work_of
from flows.contract.spec import SNAKEFILE_NAMES, ExecutionSpec, WorkflowSource
from flows.contract.storage import (
    BlobNotFound,
    LocalStorage,
    Storage,
    StorageError,
    StorageSettings,
    bundle_key,
    job_key,
    open_storage,
)
from flows.contract.untrusted_tree import Refused
from flows.workspace.git import CheckoutSettings, check_out
from flows.workspace.lock import DirectoryInUse, DirectoryLock
from flows.workspace.work_archive import bring_back_work, keep_work

MANIFEST_VERSION = 1
_NOT_COPIED = frozenset({".snakemake", ".git"})
_DIRECTORY_MARK = ".snakemake_timestamp"
"""Snakemake leaves it in every directory that is an output."""

_NAME_DIRECTORY = "Name the directory of the workflow."
_MAKE_READABLE = "Make the workflow's directory readable for the service."
_LONGEST_SNAKEFILE = 1 << 20


class StageError(Exception):
    """The workflow can't be brought in; `resolution` says what the submitter can do."""

    def __init__(self, message: str, resolution: str) -> None:
        super().__init__(message)
        self.resolution = resolution


@dataclass(frozen=True, slots=True)
class Staged:
    """What came in."""

    commit: str | None = None
    """Of the git repository, if it came from one."""
    notes: tuple[str, ...] = ()
    """What the submitter should know about it."""


class WorkspaceSettings(StorageSettings, SourceSettings, BundleLimits, CheckoutSettings):
    """Where jobs live and where workflows may come from."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")


class Workspace:
    """The directory of one job."""

    def __init__(self, settings: WorkspaceSettings, job_id: UUID, resumes: UUID | None = None) -> None:
        """`resumes` is the job that this one goes on with."""
        self._settings = settings
        self._job_id = job_id
        self._resumes = resumes
        self._roots = [root.resolve() for root in settings.workflow_roots]
        self._home = settings.home.resolve()
        self._disk = LocalStorage(self._home)
        self.directory = self._home / "jobs" / str(job_id)
        self.work = self.directory / "work"
        self.config_file = self.directory / "config.json"
        self.snakemake_log = self.directory / "snakemake.log"
        self.report = self.directory / "report.html"
        self.output_cache = self._home / "cache"
        self.event_log = self.directory / "events.jsonl"
        self.manifest = self.directory / "outputs.json"
        self._snakefile: dict[str, str] | None = None
        self._lock = DirectoryLock(self.directory / "flow.pid")
        self._work_lock: DirectoryLock | None = None

    def lock(self) -> None:
        """Hold this directory until the process ends, however it ends.

        Raises `StageError` if another process holds it.
        """
        self._hold(self._lock)

    @property
    def work_locks(self) -> list[int]:
        """Descriptors that keep others out of `work/` as long as one process has them open."""
        return [] if self._work_lock is None else self._work_lock.descriptors

    def holder(self) -> int | None:
        """The pid of the process that holds this directory; 0 if it is gone, None if there was none."""
        return self._lock.holder()

    @cached_property
    def storage(self) -> Storage:
        """Where bundles come from and outputs go to."""
        return open_storage(self._settings)

    def stage(self, spec: ExecutionSpec) -> Staged:
        """Make the directory and copy the workflow in, so that later changes can't reach the job.

        Raises `StageError`, and `StorageError` where it is the service that can't.
        """
        notes: tuple[str, ...] = ()
        if self._resumes is not None:
            notes = self._take_over(self._resumes)
        self._work_lock = self._work_lock or DirectoryLock(self.work.with_suffix(".lock"))
        self._hold(self._work_lock)
        if spec.workflow is None:
            self.work.mkdir(exist_ok=True)
            return Staged()
        staged = Staged(notes=notes) if self.work.exists() else self._bring_in(spec.workflow, notes)
        self.config_file.write_text(json.dumps(spec.config))
        self._snakefile = _snakefile_item(self.work, self.snakefile(spec))
        return staged

    def keep(self) -> None:
        """Leave what a successor needs to go on, where the job's disk may be gone by then.

        To be called after `publish`. Raises `StorageError`.
        """
        if self.storage.outlives_machines and self.work.is_dir():
            keep_work(self.storage, self._job_id, self.work, self.manifest)

    def _take_over(self, job_id: UUID) -> tuple[str, ...]:
        """Go on in the directory of another job; it stays where it is, for programs may know its path."""
        work = work_of(self.directory.parent / str(job_id))
        if self.storage.outlives_machines and not os.path.lexists(work):
            work.parent.mkdir(parents=True, exist_ok=True)
            bring_back_work(self.storage, job_id, work)
        is_there = work.is_dir() and not work.is_symlink()
        if is_there and not os.path.lexists(self.work):
            self.work.symlink_to(Path("..", work.parent.name, work.name))
        self.work = work_of(self.directory)
        if self.work.is_dir():
            return ()
        return (f"Nothing was kept of the job {job_id}: all is done anew.",)

    def snakefile(self, spec: ExecutionSpec) -> Path:
        """The Snakefile, relative to `work`. Raises `StageError` if there is none."""
        candidates = [spec.snakefile] if spec.snakefile else SNAKEFILE_NAMES
        for candidate in candidates:
            if (self.work / candidate).is_file():
                return Path(candidate)
        raise StageError(
            f"no Snakefile: the workflow's directory has none of {', '.join(candidates)}",
            "Set `snakefile` to the path of the Snakefile, relative to the workflow's directory.",
        )

    def publish(self, outputs: Iterable[str]) -> int:
        """Keep those `outputs` (paths relative to `work`) that exist, and the job's logs; their number.

        The manifest comes last: what it lists is there. Raises `StorageError`.
        """
        places = {path: f"work/{path}" for path in sorted(set(outputs)) if not Path(path).is_absolute()}
        items = {place: item for path, place in places.items() if (item := self._manifest_item(path, place))}
        path = _free_path(self.report.name, {str(item["path"]) for item in items.values()})
        if report := self._manifest_item(path, self.report.name):
            items[self.report.name] = report
        logs = [self._key(log.name) for log in (self.snakemake_log, self.event_log)]
        self.storage.publish(
            [*map(self._key, items), *(log for log in logs if self._disk.size(log) is not None)], self._disk
        )
        manifest = {"version": MANIFEST_VERSION, "outputs": [*items.values()], "snakefile": self._snakefile}
        key = self._key(self.manifest.name)
        # As a whole: a reader sees the whole manifest or none.
        self._disk.put(key, io.BytesIO(json.dumps(manifest).encode()))
        self.storage.publish([key], self._disk)
        return len(items)

    def files_of(self, outputs: Iterable[str]) -> list[str]:
        """`outputs` relative to `work`, every directory replaced by the files in it; none from elsewhere."""
        work = self.work
        files: list[str] = []
        for path in (work / output for output in outputs):
            # Before anybody walks through it: a rule may have made it, or `work`, a link to anywhere.
            if not (path.is_relative_to(work) and Path(os.path.realpath(path)).is_relative_to(work)):
                continue
            found = path.rglob("*") if path.is_dir() else [path]
            files += [
                str(file.relative_to(work))
                for file in found
                if file.is_file() and file.name != _DIRECTORY_MARK and file.resolve().is_relative_to(work)
            ]
        return files

    def _hold(self, lock: DirectoryLock) -> None:
        try:
            lock.hold()
        except DirectoryInUse as error:
            raise StageError(str(error), "Wait until that job has ended, or cancel it.") from error

    def _key(self, place: str) -> str:
        return job_key(self._job_id, place)

    def _manifest_item(self, path: str, place: str) -> dict[str, str | int] | None:
        """What is told of an output called `path`, which is the file `place` in the job's directory."""
        try:
            file = self._disk.open(self._key(place))
        except BlobNotFound:
            return None
        with file:
            checksum = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # typeshed asks for more than it needs
            status = os.fstat(file.fileno())
        item: dict[str, str | int] = {
            "path": path,
            "size": status.st_size,
            "sha256": checksum.hexdigest(),
            "modified_at": datetime.fromtimestamp(status.st_mtime, UTC).isoformat(),
        }
        return item if place == f"work/{path}" else item | {"file": place}

    def _bring_in(self, workflow: WorkflowSource, notes: tuple[str, ...]) -> Staged:
        """Make `work`; it is there as a whole or not at all."""
        partial = self.work.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        staged = Staged(notes=notes)
        try:
            match workflow:
                case WorkflowSource(bundle=str(bundle)):
                    self._unpack(bundle, workflow.subdir or ".", partial)
                case WorkflowSource(git=str(address)):
                    checkout = check_out(
                        address, workflow.ref, workflow.subdir or ".", partial, self._settings, _NOT_COPIED
                    )
                    staged = Staged(checkout.commit, (*notes, *checkout.notes))
                case _:
                    self._copy(self._source(workflow.path or ""), partial)
        except Refused as refusal:
            raise StageError(str(refusal), refusal.resolution) from refusal
        partial.replace(self.work)
        return staged

    def _unpack(self, bundle: str, subdirectory: str, directory: Path) -> None:
        with tempfile.TemporaryFile(dir=self.directory) as archive:
            checksum = hashlib.sha256()
            try:
                for chunk in self.storage.read(bundle_key(bundle)):
                    checksum.update(chunk)
                    archive.write(chunk)
            except BlobNotFound:
                raise StageError(
                    f"there is no bundle {bundle}", "Send it with PUT /bundles and submit the job again."
                ) from None
            if f"sha256:{checksum.hexdigest()}" != bundle:
                raise StorageError(f"The bundle {bundle} is damaged in the storage. Remove it there.")
            unpack_bundle(archive, directory, self._settings, subdirectory, _NOT_COPIED)

    def _copy(self, source: Path, directory: Path) -> None:
        try:
            shutil.copytree(source, directory, ignore=self._not_copied, symlinks=True)
        except shutil.Error as error:
            named, _, reason = error.args[0][0]
            raise StageError(
                f"{Path(named).relative_to(source)} can't be copied: {reason.replace(f'{source}/', '')}",
                "Remove it from the workflow's directory, or make it readable for the service.",
            ) from error
        except OSError as error:
            raise StageError(f"the workflow can't be copied: {error.strerror}", _MAKE_READABLE) from error

    def _not_copied(self, directory: str, names: list[str]) -> set[str]:
        """What is Snakemake's or Git's own, and the service's home if it lies in the workflow."""
        return {name for name in names if name in _NOT_COPIED or Path(directory, name) == self._home}

    def _source(self, path: str) -> Path:
        try:
            source = Path(path).resolve()
        except (ValueError, RuntimeError, OSError) as error:
            raise StageError(f"workflow.path {path!r} is no path: {error}", _NAME_DIRECTORY) from error
        if not any(source.is_relative_to(root) for root in self._roots):
            raise StageError(
                f"workflow.path {path} does not lie under a workflow root of this server",
                f"Put the workflow under one of: {', '.join(map(str, self._roots)) or '(no root is set)'}; "
                "the operator sets them with JOBS_WORKFLOW_ROOTS.",
            )
        if source.is_relative_to(self._home):
            raise StageError(
                f"workflow.path {path} lies where the service keeps its jobs",
                "Name a directory outside of JOBS_HOME; to go on with a job, resume it.",
            )
        if not source.is_dir():
            raise StageError(f"workflow.path {path} is not a directory", _NAME_DIRECTORY)
        return source


def _snakefile_item(work: Path, path: Path) -> dict[str, str] | None:
    """The Snakefile as it was before the first rule ran, and what read it; none of a giant."""
    try:
        # The rules of the job that is resumed have run: it may be a link to elsewhere, which is none.
        with open_file(work / path, within=work) as file:
            content = file.read(_LONGEST_SNAKEFILE + 1)
    except FileNotFoundError:
        return None
    if len(content) > _LONGEST_SNAKEFILE:
        return None
    text = content.decode("utf-8", errors="replace")
    return {"path": str(path), "text": text, "snakemake": version("snakemake")}


def _free_path(name: str, taken: Collection[str]) -> str:
    """`name`, or one like it that no output of the workflow has."""
    others = (f"snakemake-{number}-{name}" for number in count(2))
    return next(path for path in chain((name, f"snakemake-{name}"), others) if path not in taken)
