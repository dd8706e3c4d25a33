"""What worker and zygote send each other: one JSON line each."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fork:
    """The worker wants a flow process."""

    flow_run_id: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Forked:
    flow_run_id: str
    pid: int
    started_at: float
    """Seconds since the epoch, as the kernel has it: tells the process from a later one with its pid."""


@dataclass(frozen=True, slots=True)
class Exited:
    pid: int
    exit_code: int
    """Negative: the signal that ended it."""
