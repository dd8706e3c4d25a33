"""The attempts that are on the cluster: what was submitted, and what nodes have recorded about it.

A *unit* is what Snakemake's scheduler hands over at once: a rule job, or a group of them. The cluster knows
units, and nodes know attempts.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flows.snakemake_process.cluster.records import Records, key_of
from flows.snakemake_process.events import Outcome
from flows.snakemake_process.planning import rule_jobs_of


@dataclass
class Attempt:
    """An attempt at a rule job, from its submission to the check of its outputs."""

    job: Any
    """The rule job."""
    unit: Any
    info: Any = None
    """The plugin's `SubmittedJobInfo`; None until it is submitted."""
    started: Mapping[str, Any] | None = None
    """The node's record of its start."""
    ended: Mapping[str, Any] | None = None
    """The node's record of its end."""
    message: str = ""
    """The plugin's message about its failure."""
    logs: tuple[str, ...] = ()
    """The cluster's own log files, where it failed."""
    queue_reason: str = ""

    @property
    def external_id(self) -> str | None:
        return None if self.info is None else self.info.external_jobid

    @property
    def has_failed(self) -> bool:
        return self.ended is not None and self.ended["outcome"] == Outcome.FAILED


class OpenAttempts:
    """All attempts that have not ended. Thread-safe: the plugin asks the cluster from a thread of its own."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._by_key: dict[str, Attempt] = {}
        self._units: dict[Any, list[Attempt]] = {}
        self._reported: set[Any] = set()
        self._lock = threading.RLock()

    def add(self, unit: Any) -> None:
        """A unit will be submitted."""
        attempts = [Attempt(job, unit) for job in rule_jobs_of(unit)]
        with self._lock:
            self._units[unit] = attempts
            self._reported.discard(unit)
            for attempt in attempts:
                self._records.forget(attempt.job)
                self._by_key[key_of(attempt.job)] = attempt

    def of(self, unit: Any) -> list[Attempt]:
        with self._lock:
            return list(self._units.get(unit, ()))

    def is_open(self, info: Any) -> bool:
        """Whether the end of this submission was not reported yet."""
        with self._lock:
            return info.job in self._units and info.job not in self._reported

    def report(self, info: Any) -> bool:
        """Count the end of this submission as reported. Returns whether it is the first report."""
        with self._lock:
            is_first = self.is_open(info)
            self._reported.add(info.job)
            return is_first

    def remove(self, unit: Any) -> list[Attempt]:
        """The attempts of a unit that has ended."""
        with self._lock:
            attempts = self._units.pop(unit, [])
            for attempt in attempts:
                self._by_key.pop(key_of(attempt.job), None)
            return attempts

    def submitted(self) -> list[Any]:
        """The plugin's infos of all units that are on the cluster."""
        with self._lock:
            firsts = (attempts[0].info for attempts in self._units.values() if attempts)
            return [info for info in firsts if info is not None and info.job not in self._reported]

    def waiting(self) -> list[Attempt]:
        """Those that are on the cluster, and that no node has started."""
        with self._lock:
            return [
                attempt
                for attempt in self._by_key.values()
                if attempt.info is not None and attempt.started is None
            ]

    def take_records(self) -> tuple[list[Attempt], bool]:
        """Read what nodes have recorded. Returns attempts that have started, and whether any has ended."""
        started, has_end = [], False
        with self._lock:
            for record in self._records.take():
                attempt = self._by_key.get(record.key)
                if attempt is None:
                    continue
                if record.is_end:
                    attempt.ended, has_end = record.content, True
                else:
                    attempt.started = record.content
                    started.append(attempt)
        return started, has_end

    def is_end_near(self) -> bool:
        """Whether the cluster must soon say that a unit has ended, because a node has recorded it."""
        with self._lock:
            return any(
                _has_ended(attempts) for unit, attempts in self._units.items() if unit not in self._reported
            )


def _has_ended(attempts: Iterable[Attempt]) -> bool:
    attempts = list(attempts)
    return all(attempt.ended for attempt in attempts) or any(attempt.has_failed for attempt in attempts)
