"""The messages between worker and zygote, one JSON line each."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fork:
    """The worker requests a flow process."""

    flow_run_id: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Forked:
    flow_run_id: str
    pid: int
    started_at: float
    """Seconds since the epoch, from the kernel. Distinguishes the process from a later one with its pid."""


@dataclass(frozen=True, slots=True)
class Exited:
    pid: int
    exit_code: int
    """Negative: the signal that killed it."""
