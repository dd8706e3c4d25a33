"""Removes conda environments that no job has used for long, from the caches of all groups."""

import fcntl
import shutil
import time
from pathlib import Path

_DAY_SECONDS = 86_400
_FLAG = ".env_setup_done"
"""Snakemake leaves such a file beside an environment that is whole; each use sets its time."""


def remove_unused_software(directory: Path, keep_days: float) -> list[str]:
    """The names of what was removed. `directory` holds a cache for each group.

    A cache is locked meanwhile, so that nothing is removed while it is being made. An environment that
    a job has used within `keep_days` stays; a rule that has run for longer than that would lose its own.
    """
    removed = []
    for prefix in sorted(directory.glob("*/conda")):
        with (prefix / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for flag in sorted(prefix.glob(f"*{_FLAG}")):
                if flag.stat().st_mtime < time.time() - keep_days * _DAY_SECONDS:
                    environment = flag.with_name(flag.name.removesuffix(_FLAG))
                    # The flag first: Snakemake takes an environment with a flag for whole.
                    flag.unlink()
                    shutil.rmtree(environment, ignore_errors=True)
                    removed.append(f"{prefix.parent.name}/{environment.name}")
    return removed
