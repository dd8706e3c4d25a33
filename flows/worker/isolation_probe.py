"""Tries out whether this machine can keep jobs apart."""

import logging
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from flows.contract.isolation import Isolation, IsolationSettings, Network, record_missing

_LANDLOCK = "Landlock"
_SECONDS = 30.0

logger = logging.getLogger("prefect.workers.snakemake")


class IsolationMissing(Exception):
    """The operator requires rooms, and this machine can't make them."""


def check_isolation(settings: IsolationSettings, home: Path) -> None:
    """Report what this machine lacks, in the log and for the jobs API. Raises `IsolationMissing`."""
    if settings.isolation is Isolation.OFF:
        record_missing(home, None)
        return
    missing = missing_here(settings.networks())
    if settings.isolation is Isolation.REQUIRED and missing and missing != [_LANDLOCK]:
        raise IsolationMissing(
            f"JOBS_ISOLATION=required, but this machine can't make a room for a job: {missing[0]}. "
            "See docs/security.md for what it needs, or set JOBS_ISOLATION=preferred."
        )
    for each in missing:
        logger.warning("Jobs are not fully kept apart on this machine, which lacks: %s.", each)
    record_missing(home, missing)


def missing_here(networks: Collection[Network]) -> list[str]:
    """What this machine lacks: nothing, a reason why it can't make rooms or networks, or only Landlock."""
    missing = _missing_with(Network.HOST)
    if missing in ([], [_LANDLOCK]):
        more = {line for each in sorted(networks) for line in _missing_with(each)}
        missing += [f"a network for each job: {line}" for line in sorted(more - {_LANDLOCK})]
    return missing


def _missing_with(network: Network) -> list[str]:
    tried = subprocess.run(
        [sys.executable, "-m", "flows.snakemake_process.room", network],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if tried.returncode:
        return [f"the trial of a room ended with exit code {tried.returncode}"]
    return [line for line in tried.stdout.splitlines() if line]
