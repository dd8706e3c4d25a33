"""A run of Snakemake as Prefect is to see it: its rule jobs, its log, and how it ends."""

import getpass
import os
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .log_entries import LogEntries
from .redaction import Redaction
from .rule_job import Attempt, Planned, RuleJob
from .rule_jobs import RuleJobs
from .task_runs import JsonObject

ATTACHED = "snakemake.attached"
"""The label that says where a run happens (`flows/contract/spec.py`, `Label.ATTACHED`)."""

_RUN_IT_AGAIN = "Read the log of the rule job, correct the rule, and run Snakemake again."
_CORRECT_IT = "Read the log of the job, correct the workflow or its configuration, and run Snakemake again."


@dataclass(frozen=True, slots=True)
class Ending:
    """The final state of a run, as the arguments of Prefect's state."""

    type: str
    message: str = ""
    labels: JsonObject = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.type.title()


class Run:
    """Written by Snakemake's threads, and read by the one that sends."""

    def __init__(self) -> None:
        self.redaction = Redaction()
        self.rule_jobs = RuleJobs()
        self.entries = LogEntries(self.redaction)
        self.is_stopped = threading.Event()
        """Whether somebody has asked Snakemake to stop."""
        self._errors: list[str] = []
        self._is_lost_because: str | None = None

    def labels(self) -> JsonObject:
        """What does not change: where it runs, and with which Snakemake."""
        return {ATTACHED: place(), "snakemake.version": _snakemake_version()}

    def plan(self, plan: Iterable[Planned], now: float) -> None:
        self.rule_jobs.plan(plan, now)

    def add(self, planned: Planned) -> None:
        self.rule_jobs.add(planned, time.time())

    def hide(self, variables: Iterable[str]) -> None:
        """Keep the values of these variables out of what follows."""
        self.redaction.hide(variables)

    def log(self, level: int, text: str, at: float) -> None:
        self.entries.add(level, self.redaction.text(text), at)

    def start(self, job_id: int, attempt: Attempt) -> None:
        redact = self.redaction.text
        attempt = replace(attempt, reason=redact(attempt.reason), shell=redact(attempt.shell or "") or None)
        job = self.rule_jobs.start(job_id, attempt)
        if job is not None:
            self.entries.begin(job, attempt)

    def submit(self, job_id: int, external_id: str) -> None:
        """A cluster has accepted the newest attempt."""
        self.rule_jobs.submit(job_id, external_id)

    def succeed(self, job_id: int, now: float) -> None:
        job = self.rule_jobs.succeed(job_id, now)
        if job is not None:
            self.entries.end(job)

    def fail_rule_job(self, job_id: int, now: float, reason: str, text: str, *, will_retry: bool) -> None:
        """An attempt has failed: `reason` in one sentence, `text` in Snakemake's words."""
        redact = self.redaction.text
        job = self.rule_jobs.fail(job_id, now, redact(reason), will_retry=will_retry)
        if job is not None:
            self.entries.end(job, redact(text))

    def fail(self, error: str) -> None:
        """The run as a whole has failed."""
        self._errors.append(self.redaction.text(error))

    def lose(self, reason: str) -> None:
        """Nothing more will be known about the run."""
        self._is_lost_because = self.redaction.text(reason)

    def stop(self) -> None:
        """From now on, what ends was stopped."""
        self.is_stopped.set()

    def close(self, now: float) -> Ending:
        """How it has ended, when nothing more will happen."""
        if self._is_lost_because is not None:
            self.rule_jobs.close(now, is_stopped=False)
            return Ending("CRASHED", self._is_lost_because)
        is_incomplete = self.rule_jobs.has_open()
        self.rule_jobs.close(now, is_stopped=self.is_stopped.is_set())
        if self.is_stopped.is_set() and (is_incomplete or self.rule_jobs.failures()):
            return Ending("CANCELLED", "The run was stopped.")
        if failures := self.rule_jobs.failures():
            return _failed_because_of(failures[0])
        if self._errors:
            return _failed(self._errors[-1], _CORRECT_IT)
        if is_incomplete:
            return _failed("Snakemake ended before every rule job had run.", _CORRECT_IT)
        return Ending("COMPLETED")


def place() -> str:
    """Who runs it, on which machine, and where."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{Path.cwd()}"


def _failed_because_of(job: RuleJob) -> Ending:
    ending = _failed(f"{job.name} failed: {job.state.message}", _RUN_IT_AGAIN)
    return replace(ending, labels=ending.labels | {"snakemake.error.rule": job.planned.rule})


def _failed(message: str, resolution: str) -> Ending:
    labels = {
        "snakemake.error.kind": "workflow",
        "snakemake.error.message": message,
        "snakemake.error.resolution": f"{resolution} See docs/attach.md.",
    }
    return Ending("FAILED", message, labels)


def _snakemake_version() -> str:
    try:
        return version("snakemake")
    except PackageNotFoundError:
        return "unknown"
