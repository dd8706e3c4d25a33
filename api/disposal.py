"""Removes what jobs have left: their files, and bundles that no job needs any more."""

import io
import shutil
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from flows.storage import LocalStorage, Storage, bundle_key, bundle_use_key, job_key

_OF_THE_WORK = frozenset({"work", "work.lock"})


class Disposal:
    """Every method blocks, and may raise `flows.storage.StorageError`."""

    def __init__(self, storage: Storage, home: Path) -> None:
        self._storage = storage
        self._directories = home / "jobs"
        self._is_local = isinstance(storage, LocalStorage)

    def note_use(self, bundle: str, use: str) -> None:
        """Write down that a job needs the bundle, before there is the job; `use` is its idempotency key."""
        self._storage.put(bundle_use_key(bundle, _word(use)), io.BytesIO())

    def end_use(self, bundle: str, use: str) -> None:
        """The job is gone; with the last one that needed it, the bundle goes as well."""
        self._storage.remove(bundle_use_key(bundle, _word(use)))
        if not self._storage.names(bundle_use_key(bundle)):
            self._storage.remove(bundle_key(bundle))

    def remove_job(self, job_id: UUID) -> None:
        """Remove all files of a job, but not the directory in which another job went on with it.

        That goes with the last of the jobs that worked in it.
        """
        if not self._is_local:
            self._storage.remove(job_key(job_id))
        directory = self._directories / str(job_id)
        if not directory.is_dir():
            return
        work = directory / "work"
        home_of_work = work.resolve().parent
        is_needed = any(
            other != directory
            and (other / "work").is_symlink()
            and (other / "work").resolve() == work.resolve()
            for other in self._directories.iterdir()
        )
        if home_of_work == directory.resolve() and is_needed:
            for entry in directory.iterdir():
                if entry.name not in _OF_THE_WORK:
                    entry.unlink()
            return
        shutil.rmtree(directory)
        if home_of_work.is_dir() and not is_needed and _is_only_work(home_of_work):
            shutil.rmtree(home_of_work)


def _is_only_work(directory: Path) -> bool:
    """Whether the job whose directory this was has been removed before."""
    return {entry.name for entry in directory.iterdir()} <= _OF_THE_WORK


def _word(use: str) -> str:
    return sha256(use.encode()).hexdigest()[:32]
