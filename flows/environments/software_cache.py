"""Removes unused conda environments from the caches of all groups."""

import fcntl
import shutil
import time
from pathlib import Path

_DAY_SECONDS = 86_400
_FLAG = ".env_setup_done"
"""Snakemake creates this file next to a complete environment; each use updates its time."""


def remove_unused_software(directory: Path, keep_days: float) -> list[str]:
    """Remove environments unused for `keep_days`; their names. `directory` has a cache for each group.

    Each cache is locked meanwhile, so that no environment is removed while it is being created. A rule
    that has been running for longer than `keep_days` would lose its environment.
    """
    removed = []
    for prefix in sorted(directory.glob("*/conda")):
        with (prefix / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for flag in sorted(prefix.glob(f"*{_FLAG}")):
                if flag.stat().st_mtime < time.time() - keep_days * _DAY_SECONDS:
                    environment = flag.with_name(flag.name.removesuffix(_FLAG))
                    # The flag first: Snakemake considers an environment with a flag complete.
                    flag.unlink()
                    shutil.rmtree(environment, ignore_errors=True)
                    removed.append(f"{prefix.parent.name}/{environment.name}")
    return removed
