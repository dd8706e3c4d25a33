"""A directory that a job works in, where people may run Snakemake, too.

Snakemake's own locks keep people's runs and jobs apart; they outlive a killed run. So a job leaves a
mark while it works: if the next job finds it, the job before was killed, and its locks are removed.

The mark and the lock between jobs are in JOBS_HOME/projects. In the project, a rule could replace them by
links to files of the service.
"""

import math
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from flows.workspace.lock import DirectoryInUse, DirectoryLock


class Project:
    """A working directory outside of JOBS_HOME."""

    def __init__(self, directory: Path, home: Path) -> None:
        """`directory` is without links; `home` is JOBS_HOME."""
        self._directory = directory
        self._records = directory / ".snakemake"
        own = home / "projects" / sha256(os.fsencode(directory)).hexdigest()
        self._mark = own / "job"
        self.lock = DirectoryLock(own / "lock")

    def enter(self, job_id: UUID, report: Callable[[str], None], is_stopped: Callable[[], bool]) -> None:
        """Wait until no other job works in it, and lock it.

        Raises `DirectoryInUse` if the job is stopped meanwhile, and `OSError`.
        """
        try:
            self.lock.hold(timeout_seconds=0)
        except DirectoryInUse:
            report(f"Waiting: another job works in {self._directory}.")
            self.lock.hold(math.inf, is_stopped)
        if self._mark.exists():
            self._remove_snakemakes_locks()
        self._mark.write_text(str(job_id))
        self._records.mkdir(exist_ok=True)  # Snakemake would; here, the error says what is wrong

    def leave(self) -> None:
        """Remove the mark: Snakemake has ended and removed its own locks."""
        self._mark.unlink(missing_ok=True)

    def _remove_snakemakes_locks(self) -> None:
        locks = self._records / "locks"
        if Path(os.path.realpath(locks)) == locks:  # not through a link that a rule has left
            shutil.rmtree(locks, ignore_errors=True)
