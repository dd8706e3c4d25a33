"""A directory that a job works in, where people may run Snakemake, too.

Snakemake's own locks keep people's runs and jobs apart; they outlive a killed run. So a job leaves a
mark while it works: if the next job finds it, the job before was killed, and its locks are removed.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from flows.workspace.lock import DirectoryInUse, DirectoryLock


class Project:
    """A working directory outside of JOBS_HOME."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        records = directory / ".snakemake"
        self._mark = records / "prefect-snakemake.job"
        self._snakemake_locks = records / "locks"
        self.lock = DirectoryLock(records / "prefect-snakemake.lock")

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
            shutil.rmtree(self._snakemake_locks, ignore_errors=True)
        self._mark.write_text(str(job_id))

    def leave(self) -> None:
        """Remove the mark: Snakemake has ended and removed its own locks."""
        self._mark.unlink(missing_ok=True)
