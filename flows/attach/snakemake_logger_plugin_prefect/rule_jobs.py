"""The rule jobs of a run, and which of their states Prefect has not received yet.

Between two requests it keeps only the newest state of a rule job, so its memory is bounded by the size
of the plan, however long Prefect is away. Nothing here does I/O. The states are those that the service
gives the rule jobs of its own jobs (`flows/record/mirror.py`).
"""

import threading
from collections.abc import Iterable
from uuid import UUID

from .rule_job import Attempt, Planned, RuleJob
from .task_runs import JsonObject, State, task_run_id_of

SHOWN_AS_RUNNING_SECONDS = 1.0
"""A rule job that ends sooner is only reported at its end, which halves its cost."""

INTERRUPTED = frozenset(
    {
        "Its command was killed by signal 2.",
        "Its command was killed by signal 15.",
        "Its command ended with exit code 130.",
        "Its command ended with exit code 143.",
    }
)
"""Failures of commands that get the signal which also stops Snakemake."""


class RuleJobs:
    """Thread-safe: Snakemake's threads write, and another one sends."""

    def __init__(self) -> None:
        self._jobs: dict[int, RuleJob] = {}
        self._unsent: dict[int, None] = {}  # ordered: first come, first sent
        self._lock = threading.Lock()

    def plan(self, plan: Iterable[Planned], now: float) -> None:
        """The whole plan as it is now: rule jobs that are not in it any more will not run."""
        with self._lock:
            planned = {each.job_id: each for each in plan}
            for each in planned.values():
                self._plan(each, now)
            for job_id in self._jobs.keys() - planned.keys():
                self._drop(self._jobs[job_id], now)

    def add(self, planned: Planned, now: float) -> None:
        """One more rule job, where the plan is unknown."""
        with self._lock:
            self._plan(planned, now)

    def start(self, job_id: int, attempt: Attempt) -> RuleJob | None:
        with self._lock:
            if job := self._jobs.get(job_id):
                job.attempt, job.external_id = attempt, None
                self._enter(job, "RUNNING", "Running" if attempt.number == 1 else "Retrying", attempt.time)
            return job

    def submit(self, job_id: int, external_id: str) -> None:
        with self._lock:
            if job := self._jobs.get(job_id):
                job.external_id = external_id

    def succeed(self, job_id: int, now: float) -> RuleJob | None:
        with self._lock:
            if job := self._jobs.get(job_id):
                self._enter(job, "COMPLETED", "Completed", now)
            return job

    def fail(self, job_id: int, now: float, message: str, *, will_retry: bool) -> RuleJob | None:
        """The rule job, if it was running."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.state.type != "RUNNING":
                return None
            kind, name = ("SCHEDULED", "AwaitingRetry") if will_retry else ("FAILED", "Failed")
            self._enter(job, kind, name, now, message)
            return job

    def close(self, now: float, *, is_stopped: bool) -> None:
        """Put every rule job that has not ended into a final state."""
        with self._lock:
            for job in self._jobs.values():
                if is_stopped:
                    self._stop(job, now)
                elif job.state.type == "SCHEDULED":
                    self._enter(job, "FAILED", "Failed", now, job.state.message)
                elif job.is_open and job.attempt is None:
                    self._enter(job, "CANCELLED", "NotRun", now, "A rule job before it failed.")
                elif job.is_open:
                    message = "Snakemake ended without reporting its end."
                    self._enter(job, "CRASHED", "Crashed", now, message)

    def due(self, flow_run_id: UUID, now: float, limit: int) -> list[JsonObject]:
        """At most `limit` state changes to send now, oldest first. They count as sent from here on."""
        with self._lock:
            job_ids = [job_id for job_id in self._unsent if self._is_due(self._jobs[job_id], now)][:limit]
            for job_id in job_ids:
                del self._unsent[job_id]
            return [self._jobs[job_id].event(flow_run_id) for job_id in job_ids]

    def resend(self, flow_run_id: UUID, recorded: set[UUID]) -> None:
        """Make each rule job due again whose task run is not in `recorded`."""
        with self._lock:
            for job in self._jobs.values():
                if task_run_id_of(flow_run_id, job.planned.job_id) not in recorded:
                    job.repeat()
                    self._changed(job)

    def revive(self, now: float) -> None:
        """Make due again what is open or unsent, as of now: the service has closed it meanwhile."""
        with self._lock:
            for job in self._jobs.values():
                if job.is_open or job.planned.job_id in self._unsent:
                    job.repeat(now)
                    self._changed(job)

    def makers(self, paths: Iterable[str]) -> tuple[int, ...]:
        """The rule jobs whose outputs these are."""
        wanted = set(paths)
        with self._lock:
            jobs = self._jobs.values()
            return tuple(job.planned.job_id for job in jobs if wanted.intersection(job.planned.outputs))

    def failures(self) -> list[RuleJob]:
        """Rule jobs that have failed, first failure first."""
        with self._lock:
            failed = [job for job in self._jobs.values() if job.state.type == "FAILED"]
        return sorted(failed, key=lambda job: job.state.time)

    def progress(self) -> tuple[int, int]:
        """How many were sent as completed, and how many there are."""
        with self._lock:
            jobs = [job for job in self._jobs.values() if not job.is_dropped]
            done = sum(
                job.state.type == "COMPLETED" and job.planned.job_id not in self._unsent for job in jobs
            )
            return done, len(jobs)

    def unsent(self) -> int:
        return len(self._unsent)

    def has_open(self) -> bool:
        with self._lock:
            return any(job.is_open for job in self._jobs.values())

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def _plan(self, planned: Planned, now: float) -> None:
        job = self._jobs.get(planned.job_id)
        if job is not None and job.planned == planned and not job.is_dropped:
            return
        if job is None:
            job = RuleJob(planned, now, State("PENDING", "Pending", now))
            self._jobs[planned.job_id] = job
        elif job.is_dropped:
            job.is_dropped = False
            job.enter("PENDING", "Pending", now)
        job.planned = planned
        if planned.is_done and job.state.type == "PENDING":
            job.enter("COMPLETED", "Skipped", now, "Its outputs are up to date.")
        self._changed(job)

    def _drop(self, job: RuleJob, now: float) -> None:
        if job.state.type == "PENDING":
            job.is_dropped = True
            self._enter(job, "CANCELLED", "NotRun", now, "A checkpoint replaced it.")

    def _stop(self, job: RuleJob, now: float) -> None:
        if job.is_open and job.attempt is None:
            self._enter(job, "CANCELLED", "NotRun", now, "The run was stopped before it could run.")
        elif job.is_open or (job.state.type == "FAILED" and job.state.message in INTERRUPTED):
            self._enter(job, "CANCELLED", "Cancelled", now, "The run was stopped.")

    def _enter(self, job: RuleJob, kind: str, name: str, now: float, message: str = "") -> None:
        job.enter(kind, name, now, message)
        self._changed(job)

    def _changed(self, job: RuleJob) -> None:
        self._unsent[job.planned.job_id] = None

    def _is_due(self, job: RuleJob, now: float) -> bool:
        return job.state.type != "RUNNING" or now - job.state.time >= SHOWN_AS_RUNNING_SECONDS
