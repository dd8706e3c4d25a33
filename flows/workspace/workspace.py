"""A job's directory: stages the workflow, and records and publishes the outputs.

JOBS_HOME/jobs/<job id>/
  work/           a copy of the workflow's directory; Snakemake's working directory. If the job
                  resumes another one, a link to that job's; if it works in place, a link to the project
  workflow/       the workflow of a job that works in place
  work.lock       locked by the job that runs in work/
  config.json     the `config` of the job spec, which overrides the workflow's configuration
  snakemake.log   stdout and stderr of Snakemake
  snakemake.log.raw  the same while a job with secrets runs, before they are replaced
  report.html     Snakemake's report, if the job requests one
  events.jsonl    every workflow event, one JSON line each
  environment.json  the environment of Snakemake: Python and every package
  flow.pid        locked by the job's flow process while it runs
  workflow.json   what a job that describes its workflow has found
  private/        the job's HOME and /tmp while it runs
  outputs.json    the manifest: path, size and checksum of every output; the Snakefile that ran
JOBS_HOME/projects/  the lock of each directory that jobs work in, and which job does
JOBS_HOME/cache/  outputs that jobs share: Snakemake's between-workflow cache
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from uuid import UUID

from flows.contract.data_roots import check_project_path
from flows.contract.environments import EnvironmentRecord
from flows.contract.job_files import remove_tree, work_of
from flows.contract.manifest import MANIFEST_NAME, FileKind, Manifest, SnakefileItem
from flows.contract.registered import DESCRIPTION_NAME, WorkflowDescription
from flows.contract.sources import ProjectDirectory, WorkflowSource
from flows.contract.spec import DEFAULT_GROUP, EngineName, ExecutionSpec
from flows.contract.storage import LocalStorage, Storage, StorageError, job_key, open_storage
from flows.contract.untrusted_tree import Refused
from flows.contract.workflow_roots import SnakefileMissing, find_snakefile
from flows.workspace.additions import add_files, add_inputs
from flows.workspace.copying import Report
from flows.workspace.git import LFS_POINTER
from flows.workspace.git_credentials import NO_CREDENTIALS, Credentials
from flows.workspace.lock import DirectoryInUse, DirectoryLock
from flows.workspace.neighbours import note_group, output_to_read, work_to_read
from flows.workspace.project import Project
from flows.workspace.publishing import Publishing, files_of, outside_of, snakefile_item
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.source_record import SourceRecord, replace_workflow
from flows.workspace.staging import Staged, StageError, Staging
from flows.workspace.work_archive import ChangedSince, Left, bring_back_work, keep_work, read_manifest


class Workspace:
    """The directory of one job."""

    def __init__(
        self,
        settings: WorkspaceSettings,
        job_id: UUID,
        resumes: UUID | None = None,
        group: str = DEFAULT_GROUP,
        credentials: Credentials = NO_CREDENTIALS,
        left: str | None = None,
    ) -> None:
        """`resumes` is the job that this one continues, which has `left` files with these checksums.

        `credentials` are those for git repositories.
        """
        self.settings = settings
        self.group = group
        self.job_id = job_id
        self._resumes = resumes
        self._left = None if left is None else Left.parse(left)
        self._archive_sha256: str | None = None
        self._credentials = credentials
        self.home = settings.home.resolve()
        self._disk = LocalStorage(self.home, settings.all_project_roots)
        self.directory = self.home / "jobs" / str(job_id)
        self.work = self.directory / "work"
        self.tree = self.work
        """The directory of the workflow: `work`, unless the job works in a project."""
        self.config_file = self.directory / "config.json"
        self.snakemake_log = self.directory / "snakemake.log"
        self.raw_log = self.directory / "snakemake.log.raw"
        self.report = self.directory / "report.html"
        self.private = self.directory / "private"
        self.output_cache = self.home / "cache"
        self.event_log = self.directory / "events.jsonl"
        self.manifest = self.directory / MANIFEST_NAME
        self._environment_file = self.directory / "environment.json"
        self._snakefile: SnakefileItem | None = None
        self._environment: EnvironmentRecord | None = None
        self._lock = DirectoryLock(self.directory / "flow.pid")
        self._work_lock: DirectoryLock | None = None
        self._project: Project | None = None

    def lock(self) -> None:
        """Lock this directory until the process ends, however it ends.

        Raises `StageError` if another process holds it.
        """
        self._hold(self._lock)

    def lock_early(self) -> None:
        """Lock this directory before the flow does, so that the job is known to have a process.

        Raises `DirectoryInUse` and `OSError`.
        """
        self._lock.hold_early()

    @property
    def work_locks(self) -> list[int]:
        """Descriptors that keep `work/` locked while any process has them open."""
        lock = self._project.lock if self._project is not None else self._work_lock
        return [] if lock is None else lock.descriptors

    def holder(self) -> int | None:
        """The pid of the process that holds this directory; 0 if that has ended, None without any."""
        return self._lock.holder()

    @cached_property
    def storage(self) -> Storage:
        """Where bundles come from and outputs go to."""
        return open_storage(self.settings)

    def stage(
        self,
        spec: ExecutionSpec,
        report: Report = lambda _: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Staged:
        """Create the directory and copy the workflow, so that later changes do not affect the job.

        `report` gets the progress of what takes long. Raises `StageError`, and `StorageError` or
        `SecretUnusable` if the service is at fault.
        """
        try:
            staged = self._stage(spec, report, is_stopped)
        except Refused as refusal:
            raise StageError(str(refusal), refusal.resolution) from refusal
        self.config_file.write_text(json.dumps(spec.config))
        if spec.engine is EngineName.SNAKEMAKE:
            self._snakefile = snakefile_item(self.tree, self._snakefile_in_tree(spec))
        if self._snakefile is not None and self._snakefile.text.startswith(LFS_POINTER):
            raise StageError(
                f"{self._snakefile.path} is a pointer of Git LFS, not the Snakefile itself",
                "Send the workflow as a bundle (PUT /bundles), or commit the Snakefile without Git LFS.",
            )
        return staged

    def _stage(self, spec: ExecutionSpec, report: Report, is_stopped: Callable[[], bool]) -> Staged:
        note_group(self.directory, self.group)
        staging = Staging(self.settings, self.storage, self.group, report, self._credentials)
        if spec.directory is not None:
            self._work_in(spec.directory, report, is_stopped)
            if spec.workflow is None:
                return Staged()
            self.tree = self.directory / "workflow"
            return Staged() if self.tree.exists() else staging.bring_in(spec.workflow, self.tree)
        notes: tuple[str, ...] = ()
        if self._resumes is not None:
            notes = self._take_over(self._resumes)
        self._work_lock = self._work_lock or DirectoryLock(self.work.with_suffix(".lock"))
        self._hold(self._work_lock)
        if spec.workflow is None:
            self.work.mkdir(exist_ok=True)
            return Staged()
        staged = self._bring_in(spec.workflow, staging)
        add_files(self.work, spec.files)
        add_inputs(self.work, spec.inputs, self.settings.data_roots_of(self.group), self._output_of)
        return replace(staged, notes=(*notes, *staged.notes))

    def _output_of(self, job_id: UUID, path: str) -> Path:
        """What another job has made. Raises `Refused`."""
        return output_to_read(self.directory.parent, job_id, path, self.group)

    def work_of_inputs(self, spec: ExecutionSpec) -> list[Path]:
        """The working directories of the jobs whose outputs are inputs of this one. Raises `Refused`."""
        ids = {data.job: None for data in spec.inputs.values() if data.job is not None}
        return [work_to_read(self.directory.parent, job_id, self.group) for job_id in ids]

    def _bring_in(self, workflow: WorkflowSource, staging: Staging) -> Staged:
        """Bring the workflow into `work`, or replace the one that is there if it is another."""
        if not self.work.exists():
            staged = staging.bring_in(workflow, self.work)
        else:
            before = SourceRecord.read(self.work)
            if before is None or before.workflow == workflow:
                return Staged()
            new = self.work.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            staged = staging.bring_in(workflow, new)
            changed = replace_workflow(self.work, new, before.files)
            staged = replace(staged, notes=(*staged.notes, f"{changed} files of the workflow have changed."))
        SourceRecord.of(workflow, self.work).write(self.work)
        return staged

    def _work_in(self, project: ProjectDirectory, report: Report, is_stopped: Callable[[], bool]) -> None:
        """Work in a directory of the server. Waits while another job works in it."""
        roots = self.settings.project_roots_of(self.group)
        directory = check_project_path(project.path, roots)
        link = self.work
        self.work = self.tree = directory
        self._project = Project(directory, self.home)
        try:
            self._project.enter(self.job_id, report, is_stopped)
        except DirectoryInUse as error:
            raise StageError(str(error), "Submit the job again.") from error
        except OSError as error:
            raise StageError(
                f"the service can't write in {directory}: {error.strerror}",
                "Make the directory writable for the service.",
            ) from error
        if not os.path.lexists(link):
            link.symlink_to(directory)

    def remove(self) -> None:
        """Remove the job's own directory, which nobody needs after a dry run."""
        with suppress(FileNotFoundError):
            remove_tree(self.directory)

    def leave(self) -> None:
        """Call it when Snakemake has ended."""
        with suppress(OSError):
            remove_tree(self.private)
        if self._project is not None:
            self._project.leave()

    def keep_description(self, description: WorkflowDescription) -> None:
        """Store what the job has found out about its workflow. Raises `StorageError`."""
        content = io.BytesIO(description.model_dump_json().encode())
        self.storage.put(job_key(self.job_id, DESCRIPTION_NAME), content)

    def record_environment(self, environment: EnvironmentRecord) -> None:
        """Save the environment that Snakemake runs in, for people and for a job that resumes this one."""
        self._environment = environment
        self._environment_file.write_text(environment.model_dump_json())
        if self._snakefile is not None:
            self._snakefile = self._snakefile.model_copy(update={"snakemake": environment.snakemake})

    def environment_before(self) -> EnvironmentRecord | None:
        """The environment of the job that this one resumes; None if no job is resumed or it had none."""
        if self._resumes is None:
            return None
        file = self.directory.parent / str(self._resumes) / self._environment_file.name
        try:
            return EnvironmentRecord.model_validate_json(file.read_bytes())
        except (OSError, ValueError):
            pass
        try:
            content = read_manifest(self.storage, self._resumes, self._left)
            return Manifest.model_validate_json(content).environment
        except (StorageError, ChangedSince, ValueError):
            return None

    def keep(self) -> None:
        """Store what a job that resumes this one needs, if this machine's disk may be gone by then.

        Call it after `publish`. Raises `StorageError`.
        """
        if self.storage.outlives_machines and self._project is None and self.work.is_dir():
            self._archive_sha256 = keep_work(self.storage, self.job_id, self.work, self.manifest)

    def left(self) -> str | None:
        """Checksums of what this job leaves for one that resumes it; None where the disk stays."""
        if not self.storage.outlives_machines or not self.manifest.is_file():
            return None
        manifest = hashlib.sha256(self.manifest.read_bytes()).hexdigest()
        return str(Left(manifest, self._archive_sha256))

    def _take_over(self, job_id: UUID) -> tuple[str, ...]:
        """Continue in the directory of another job. It is not moved, because programs may know its path."""
        work = work_of(self.directory.parent / str(job_id))
        if self.storage.outlives_machines and not os.path.lexists(work):
            work.parent.mkdir(parents=True, exist_ok=True)
            try:
                bring_back_work(self.storage, job_id, work, self._left)
            except ChangedSince:
                return (
                    f"What job {job_id} has left was changed since it ended, and is not used: this job "
                    "starts from the beginning.",
                )
        is_there = work.is_dir() and not work.is_symlink()
        if is_there and not os.path.lexists(self.work):
            self.work.symlink_to(Path("..", work.parent.name, work.name))
        self.work = self.tree = work_of(self.directory)
        if self.work.is_dir():
            return ()
        return (f"Nothing was kept of job {job_id}: this job starts from the beginning.",)

    def offered_profiles(self) -> dict[str, str]:
        """The profiles that the operator offers: paths by name."""
        directory = self.settings.profiles_directory
        return {} if directory is None else {each.name: str(each) for each in directory.resolve().iterdir()}

    @property
    def is_shared(self) -> bool:
        """Whether people may run Snakemake in the working directory, too."""
        return self._project is not None

    def snakefile(self, spec: ExecutionSpec) -> Path:
        """The Snakefile, relative to `work` or absolute. Raises `StageError` if there is none."""
        relative = self._snakefile_in_tree(spec)
        return relative if self.tree == self.work else self.tree / relative

    def _snakefile_in_tree(self, spec: ExecutionSpec) -> Path:
        try:
            return find_snakefile(self.tree, spec.snakefile)
        except SnakefileMissing as refusal:
            raise StageError(str(refusal), refusal.resolution) from refusal

    def publish(
        self,
        outputs: Iterable[str],
        records: Mapping[FileKind, Iterable[str]] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> int:
        """Publish those `outputs` and `records` (relative to `work`) that exist; the number of outputs.

        Publishes the report and Snakemake's log, too. `is_stopped` ends what takes long. Raises
        `StorageError`.
        """
        limit = self.settings.checksum_max_bytes
        return Publishing(self.job_id, self.storage, self._disk, limit, is_stopped).publish(
            {FileKind.OUTPUT: outputs, **(records or {})},
            {FileKind.REPORT: self.report, FileKind.LOG: self.snakemake_log},
            (self.event_log,),
            self._snakefile,
            self._environment,
        )

    def files_of(self, outputs: Iterable[str]) -> list[str]:
        """`outputs` relative to `work`, directories replaced by their files. Skips paths outside `work`."""
        return files_of(self.work, outputs)

    def outside(self, outputs: Iterable[str]) -> list[str]:
        """Those `outputs` that can't be published, because they lie outside of `work`."""
        return outside_of(self.work, outputs)

    def _hold(self, lock: DirectoryLock) -> None:
        try:
            lock.hold()
        except DirectoryInUse as error:
            raise StageError(str(error), "Wait until that job has ended, or cancel it.") from error
