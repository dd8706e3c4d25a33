"""Removes the files of jobs, and bundles that no job needs any more."""

import io
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from flows.contract.job_files import work_of
from flows.contract.storage import LocalStorage, Storage, bundle_key, bundle_use_key, job_key

_OF_THE_WORK = frozenset({"work", "work.lock"})


class Disposal:
    """Every method blocks, and may raise `flows.contract.storage.StorageError`."""

    def __init__(self, storage: Storage, home: Path) -> None:
        self._storage = storage
        self._disk = storage if isinstance(storage, LocalStorage) else LocalStorage(home)
        self._directories = home / "jobs"

    def note_use(self, bundle: str, use: str) -> None:
        """Record that a job needs the bundle, before the job exists; `use` is its idempotency key."""
        self._storage.put(bundle_use_key(bundle, _word(use)), io.BytesIO())

    def end_use(self, bundle: str, use: str) -> None:
        """Record that the job is removed. With the last job that needed it, the bundle is removed too."""
        self._storage.remove(bundle_use_key(bundle, _word(use)))
        if not self._storage.names(bundle_use_key(bundle)):
            self._storage.remove(bundle_key(bundle))

    def remove_job(self, job_id: UUID) -> None:
        """Remove all files of a job, but not a working directory that another job continued in.

        That is removed with the last of the jobs that worked in it.
        """
        if self._storage is not self._disk:
            self._storage.remove(job_key(job_id))
        names = set(self._disk.names("jobs"))
        if str(job_id) not in names:
            return
        work = work_of(self._directories / str(job_id))
        owner = UUID(work.parent.name)
        others = names - {str(job_id), str(owner)}
        is_needed = any(work_of(self._directories / other) == work for other in others)
        if owner == job_id and is_needed:
            for name in set(self._disk.names(job_key(job_id))) - _OF_THE_WORK:
                self._disk.remove(job_key(job_id, name))
            return
        self._disk.remove(job_key(job_id))
        # The working directory of a job that was removed earlier.
        if not is_needed and set(self._disk.names(job_key(owner))) <= _OF_THE_WORK:
            self._disk.remove(job_key(owner))


def bundle_of(parameters: Mapping[str, object]) -> str | None:
    """The bundle that a job with these parameters needs, if it needs one."""
    workflow = parameters.get("workflow")
    return workflow.get("bundle") if isinstance(workflow, dict) else None


def _word(use: str) -> str:
    return sha256(use.encode()).hexdigest()[:32]
