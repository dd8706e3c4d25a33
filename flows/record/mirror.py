"""The state of every rule job, and which states Prefect has not received yet.

The mirror observes workflow events as they happen. Each call of `due` returns the task-run states to
send. Between two calls it keeps only the newest state of a rule job: it sends as few states as
possible, and its memory is bounded by the size of the plan.

| rule job                                  | task-run state            |
|-------------------------------------------|---------------------------|
| planned                                   | Pending                   |
| waits on a cluster                        | Pending                   |
| runs for longer than `shown_as_running`   | Running, later Retrying   |
| succeeded                                 | Completed                 |
| outputs were up to date                   | Skipped (COMPLETED)       |
| failed for the last time                  | Failed                    |
| was running when the job was stopped      | Cancelled                 |
| was running when the engine vanished      | Crashed                   |
| never ran                                 | NotRun (CANCELLED)        |

Nothing here does I/O.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import islice
from uuid import UUID

from prefect.client.schemas.objects import StateType

from flows.contract.manifest import FileKind
from flows.contract.spec import Label, RuleJobRecord, RuleJobState
from flows.record.task_runs import (
    JsonObject,
    StateChange,
    isoformat,
    state_change_event,
    task_inputs,
    task_run_id_of,
)
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    AttemptSubmitted,
    Outcome,
    RuleJobDropped,
    RuleJobPlanned,
    WorkflowEvent,
)

_MOMENT = 2e-6
"""Less than two microseconds may round to the same one."""

_EDGES = 10_000
"""Most dependencies to report per rule job: Prefect drops events over 1.5 MB without an error."""

_LONGEST_TEXT = 4_000
"""Maximum length of a reason or a command; the command of a join can name thousands of files."""

_LISTED_PATHS = 200
"""Maximum number of inputs and of outputs in a record; a join can have thousands."""


class Ending(Enum):
    """Why a mirror is closed. Decides the final state of rule jobs that have not ended."""

    FINISHED = auto()
    PLANNED = auto()
    """By a dry run: nothing was to run."""
    STOPPED = auto()
    """By a cancel or a timeout."""
    CRASHED = auto()


@dataclass(slots=True)
class RuleJob:
    """A rule job and its newest state."""

    planned: RuleJobPlanned
    task_run_id: UUID
    state: StateChange
    attempts: int = 0
    submitted: AttemptSubmitted | None = None
    started: AttemptStarted | None = None
    finished: AttemptFinished | None = None
    log_paths: list[str] = field(default_factory=list)
    """Of what its attempts wrote."""
    is_dropped: bool = False
    """Whether it is no longer part of the workflow."""

    @property
    def name(self) -> str:
        """As Prefect shows it: `rule[wildcard=value,…]`."""
        wildcards = ",".join(f"{name}={value}" for name, value in self.planned.wildcards.items())
        return f"{self.planned.rule}[{wildcards}]" if wildcards else self.planned.rule

    def enter(self, state_type: StateType, name: str, timestamp: float, message: str = "") -> None:
        """Enter a state. Its time is always later than the last one's, because Prefect ignores older ones."""
        self.state = StateChange(state_type, name, max(timestamp, self.state.timestamp + _MOMENT), message)

    def repeat(self) -> None:
        """Make the state a new one, with a time of its own.

        The server skips an event id that it has seen, even if it has lost the event since. And it can't
        record two states of the same time: it would drop all events of that batch.
        """
        self.state = replace(self.state, timestamp=self.state.timestamp + _MOMENT)

    @property
    def has_completed(self) -> bool:
        """Whether its outputs exist."""
        return self.state.type is StateType.COMPLETED

    @property
    def has_ended(self) -> bool:
        return self.state.type not in (StateType.PENDING, StateType.RUNNING, StateType.SCHEDULED)

    def is_due(self, latest_start: float) -> bool:
        """Whether its state is worth a report: it does not run, or runs since `latest_start` at least."""
        return self.state.type is not StateType.RUNNING or self.state.timestamp <= latest_start


@dataclass(frozen=True, slots=True)
class Progress:
    """Number of rule jobs that completed or had nothing to do, and of all rule jobs."""

    done: int
    total: int


@dataclass
class Mirror:
    """Follows one execution. Thread-safe."""

    flow_run_id: UUID
    _jobs: dict[int, RuleJob] = field(default_factory=dict)
    _unreported: dict[int, None] = field(default_factory=dict)  # ordered: first come, first reported
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_stopped: bool = False

    def observe(self, event: WorkflowEvent) -> None:
        """Update the state from an event of the engine."""
        with self._lock:
            match event:
                case RuleJobPlanned():
                    self._plan(event)
                case RuleJobDropped():
                    self._drop(event)
                case AttemptSubmitted():
                    self._submit(event)
                case AttemptStarted():
                    self._start(event)
                case AttemptFinished():
                    self._finish(event)
                case _:
                    pass  # does not change the state of a rule job

    def stop(self) -> None:
        """From now on, rule jobs that fail were stopped with the job, and count as cancelled."""
        self._is_stopped = True

    @property
    def is_stopped(self) -> bool:
        return self._is_stopped

    def blame(self, guilty: tuple[RuleJob, str] | None, now: float) -> None:
        """Fail a rule job that could not even start, for the reason given."""
        if guilty is not None and not self._is_stopped:
            job, reason = guilty
            with self._lock:
                self._end(job.planned.job_id, StateType.FAILED, "Failed", now, reason)

    def close(self, ending: Ending, now: float) -> None:
        """Put every rule job that has not ended into a final state."""
        running = {
            Ending.FINISHED: (StateType.CRASHED, "Crashed", "Snakemake ended without reporting its end."),
            Ending.PLANNED: (StateType.CRASHED, "Crashed", "Snakemake ran it in a dry run."),
            Ending.STOPPED: (StateType.CANCELLED, "Cancelled", "The job was stopped."),
            Ending.CRASHED: (StateType.CRASHED, "Crashed", "The engine of the job ended unexpectedly."),
        }[ending]
        not_run = {
            Ending.FINISHED: "A rule job before it failed.",
            Ending.PLANNED: "Planned only: this is a dry run.",
            Ending.STOPPED: "The job was stopped before it could run.",
            Ending.CRASHED: "The engine of the job ended unexpectedly before it could run.",
        }[ending]
        with self._lock:
            for job_id, job in self._jobs.items():
                if job.has_ended:
                    continue
                if job.state.type is StateType.SCHEDULED and ending is Ending.FINISHED:
                    # Snakemake ended before the retry that it had announced.
                    self._end(job_id, StateType.FAILED, "Failed", now, job.state.message)
                elif job.state.type is StateType.PENDING and job.attempts == 0:
                    self._end(job_id, StateType.CANCELLED, RuleJobState.NOT_RUN, now, not_run)
                else:
                    state_type, name, message = running
                    self._end(job_id, state_type, name, now, message)

    def due(self, now: float, limit: int, shown_as_running: float = 1.0) -> list[JsonObject]:
        """At most `limit` state changes to send to Prefect now, oldest first, as events.

        `Running` is due `shown_as_running` seconds after the start. Those returned count as reported from
        here on; `resend` undoes that.
        """
        with self._lock:
            latest_start = now - shown_as_running
            due = (job_id for job_id in self._unreported if self._jobs[job_id].is_due(latest_start))
            job_ids = list(islice(due, limit))
            for job_id in job_ids:
                del self._unreported[job_id]
            return [self._event(self._jobs[job_id]) for job_id in job_ids]

    def resend(self, recorded: set[UUID]) -> int:
        """Make every rule job due again whose task run is not in `recorded`. Returns their number."""
        with self._lock:
            missing = [job_id for job_id, job in self._jobs.items() if job.task_run_id not in recorded]
            for job_id in missing:
                self._jobs[job_id].repeat()
                self._changed(job_id)
            return len(missing)

    @property
    def has_unreported(self) -> bool:
        with self._lock:
            return bool(self._unreported)

    def total(self) -> int:
        """Number of rule jobs in the workflow, as known so far."""
        with self._lock:
            return sum(not job.is_dropped for job in self._jobs.values())

    def planned(self) -> int:
        """Number of rule jobs in the workflow that were not up to date."""
        with self._lock:
            return sum(not (job.is_dropped or job.planned.is_done) for job in self._jobs.values())

    def reported_completed(self) -> int:
        """Number of rule jobs that were reported to Prefect as completed."""
        with self._lock:
            return sum(
                job.state.type is StateType.COMPLETED and job_id not in self._unreported
                for job_id, job in self._jobs.items()
            )

    def open(self) -> list[RuleJob]:
        """Rule jobs that have not ended."""
        with self._lock:
            return [job for job in self._jobs.values() if not job.has_ended]

    def job(self, job_id: int) -> RuleJob | None:
        with self._lock:
            return self._jobs.get(job_id)

    def failures(self) -> list[RuleJob]:
        """Rule jobs whose last attempt failed, first failure first."""
        with self._lock:
            failed = [job for job in self._jobs.values() if job.state.type is StateType.FAILED]
        return sorted(failed, key=lambda job: job.state.timestamp)

    def rule_jobs(self) -> list[RuleJob]:
        """Those of the workflow as it is now, in the order of the plan."""
        with self._lock:
            return [job for job in self._jobs.values() if not job.is_dropped]

    def reported(self) -> list[str]:
        """Outputs that exist and that the workflow marks with `report()`."""
        return [path for job in self.rule_jobs() if job.has_completed for path in job.planned.reported]

    def outputs(self) -> Iterator[str]:
        """Outputs of the rule jobs that completed or had nothing to do."""
        with self._lock:
            jobs = [job for job in self._jobs.values() if job.has_completed]
        for job in jobs:
            yield from job.planned.outputs

    def records(self) -> dict[FileKind, list[str]]:
        """What rule jobs recorded about themselves, whether or not they succeeded."""
        with self._lock:
            jobs = [job for job in self._jobs.values() if job.log_paths or job.has_completed]
        return {
            FileKind.LOG: [path for job in jobs for path in (*job.planned.logs, *job.log_paths)],
            FileKind.BENCHMARK: [path for job in jobs for path in job.planned.benchmarks],
        }

    def __len__(self) -> int:
        return len(self._jobs)

    def _plan(self, event: RuleJobPlanned) -> None:
        job = self._jobs.get(event.job_id)
        if job is None:
            state = StateChange(StateType.PENDING, "Pending", event.time)
            job = RuleJob(event, task_run_id_of(self.flow_run_id, event.job_id), state)
            self._jobs[event.job_id] = job
        job.planned = event
        if job.is_dropped or job.state.type is StateType.PENDING:
            # With the current time: the server ignores a state that is not newer than the recorded one.
            job.is_dropped = False
            job.state = StateChange(StateType.PENDING, "Pending", event.time)
        if event.is_done and job.state.type is StateType.PENDING:
            job.state = StateChange(
                StateType.COMPLETED, RuleJobState.SKIPPED, event.time, "Its outputs are up to date."
            )
        self._changed(event.job_id)

    def _drop(self, event: RuleJobDropped) -> None:
        job = self._jobs.get(event.job_id)
        if job is not None and not job.has_ended:
            job.is_dropped = True
            self._end(
                event.job_id,
                StateType.CANCELLED,
                RuleJobState.NOT_RUN,
                event.time,
                "A checkpoint replaced it.",
            )

    def _submit(self, event: AttemptSubmitted) -> None:
        job = self._jobs.get(event.job_id)
        if job is None or (job.started is not None and job.started.attempt >= event.attempt):
            return
        job.submitted = event
        job.enter(StateType.PENDING, "Pending", event.time, _place_in_queue(event))
        self._changed(event.job_id)

    def _start(self, event: AttemptStarted) -> None:
        job = self._jobs.get(event.job_id)
        if job is None:
            return
        job.started, job.attempts = event, event.attempt
        if event.log_path is not None:
            job.log_paths.append(event.log_path)
        name = "Running" if event.attempt == 1 else "Retrying"
        job.enter(StateType.RUNNING, name, event.time)
        self._changed(event.job_id)

    def _finish(self, event: AttemptFinished) -> None:
        job = self._jobs.get(event.job_id)
        if job is None:
            return
        job.finished, job.attempts = event, max(job.attempts, event.attempt)
        if event.outcome is Outcome.SUCCEEDED:
            job.enter(StateType.COMPLETED, "Completed", event.finished_at)
        elif self._is_stopped:
            job.enter(StateType.CANCELLED, "Cancelled", event.finished_at, "The job was stopped.")
        elif event.will_retry:
            job.enter(StateType.SCHEDULED, "AwaitingRetry", event.finished_at, _failure(event))
        else:
            job.enter(StateType.FAILED, "Failed", event.finished_at, _failure(event))
        self._changed(event.job_id)

    def _end(self, job_id: int, state_type: StateType, name: str, now: float, message: str) -> None:
        self._jobs[job_id].enter(state_type, name, now, message)
        self._changed(job_id)

    def _changed(self, job_id: int) -> None:
        self._unreported[job_id] = None

    def _event(self, job: RuleJob) -> JsonObject:
        return state_change_event(self.flow_run_id, job.task_run_id, self._columns(job), job.state)

    def _columns(self, job: RuleJob) -> JsonObject:
        """The rule job as columns of Prefect's `TaskRun`."""
        depends_on = job.planned.depends_on[:_EDGES]
        upstream = (task_run_id_of(self.flow_run_id, other) for other in depends_on)
        columns: JsonObject = {
            "name": job.name,
            "task_key": f"rule.{job.planned.rule}",
            "dynamic_key": str(job.planned.job_id),
            "run_count": job.attempts,
            "tags": [job.planned.rule],
            "task_inputs": task_inputs(upstream),
            # Prefect's graph shows a rule job that has not started only with an expected start.
            "expected_start_time": isoformat(job.planned.time),
            "labels": {Label.RULE_JOB.value: _record(job).model_dump_json(exclude_defaults=True)},
        }
        if job.started is not None:
            columns["start_time"] = isoformat(job.started.time)
        if job.has_ended:
            began = job.started.time if job.started else job.state.timestamp
            columns["start_time"] = isoformat(began)
            columns["end_time"] = isoformat(job.state.timestamp)
            columns["total_run_time"] = max(0.0, job.state.timestamp - began)
        return columns


def _record(job: RuleJob) -> RuleJobRecord:
    planned, started, finished = job.planned, job.started, job.finished
    if finished is not None and finished.attempt != job.attempts:
        finished = None  # from an earlier attempt
    return RuleJobRecord(
        rule=planned.rule,
        wildcards=dict(planned.wildcards),
        threads=started.threads if started else planned.threads,
        resources=dict(started.resources if started else planned.resources),
        reason=_shortened(started.reason if started else planned.reason),
        shell=_shortened(started.shell if started else planned.shell),
        inputs=planned.inputs[:_LISTED_PATHS],
        outputs=planned.outputs[:_LISTED_PATHS],
        error=job.state.message if job.state.type in (StateType.FAILED, StateType.CRASHED) else None,
        cpu_seconds=finished.cpu_seconds if finished else None,
        peak_memory_bytes=finished.peak_memory_bytes if finished else None,
        **_place(job),
    )


def _place(job: RuleJob) -> dict[str, str | None]:
    """Where the last attempt runs or waits on a cluster."""
    submitted, started = job.submitted, job.started
    if submitted is None:
        return {}
    if started is None or started.attempt < submitted.attempt:
        waiting = None if job.has_ended else submitted.queue_reason or "in the queue"
        return {"external_id": submitted.external_id, "waiting": waiting}
    return {"external_id": submitted.external_id, "host": started.host}


def _place_in_queue(event: AttemptSubmitted) -> str:
    reason = f": {event.queue_reason}" if event.queue_reason else ""
    return f"In the queue of {event.executor} as job {event.external_id}{reason}."


def _shortened(text: str | None) -> str | None:
    if not text or len(text) <= _LONGEST_TEXT:
        return text or None
    return f"{text[:_LONGEST_TEXT]} …"


def _failure(event: AttemptFinished) -> str:
    """One sentence: the exit code if there is one, else Snakemake's message."""
    if event.exit_code is not None and event.exit_code < 0:
        return f"Its command was killed by signal {-event.exit_code}."
    if event.exit_code:
        return f"Its command ended with exit code {event.exit_code}."
    return _shortened(event.message.strip()) or "Snakemake rejected its outputs."
