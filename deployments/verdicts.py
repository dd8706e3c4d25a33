"""Decides what the reconciler does about a job, from its state in Prefect and its task in ECS. Pure.

| Prefect            | its task                           | verdict                                |
|--------------------|------------------------------------|----------------------------------------|
| PENDING            | none, and its worker is offline    | Crashed after `lost`                   |
|                    | none, and its worker is online     | Crashed after `silent`                 |
|                    | lives                              | stopped, and Crashed, after `silent`   |
| PENDING, RUNNING   | has ended or is gone               | Crashed after `settle`                 |
| RUNNING            | lives                              | –                                      |
| CANCELLING, before it ran  | any                        | stopped, and Cancelled, at once        |
| CANCELLING, running        | lives                      | stopped after `cancel`                 |
|                    | has ended or is gone               | Cancelled after `settle`               |
| CRASHED, without a reason  | has ended or is gone       | the reason is added                    |
| final, or no such run      | lives                      | stopped after `settle`                 |
| SCHEDULED, PAUSED  | any                                | –                                      |

Verdicts are idempotent: several reconcilers may act on the same one, and each part happens once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from prefect.client.schemas.objects import TERMINAL_STATES, StateType

_RESUME = "Resume the job."
_OUT_OF_MEMORY = 137  # 128 + SIGKILL, which Linux sends when memory runs out


@dataclass(frozen=True, slots=True)
class GracePeriods:
    """Grace periods before the reconciler acts."""

    settle: timedelta
    """For a change to reach Prefect, and for a process to end."""
    lost: timedelta
    """For a job without a task whose worker is offline."""
    silent: timedelta
    """For a job without a task whose worker is online, and for a task whose job has not begun."""
    cancel: timedelta
    """For a running job to end after a cancel: it stops its rule jobs and keeps their logs."""


@dataclass(frozen=True, slots=True)
class Run:
    """A flow run in Prefect."""

    id: UUID
    state: StateType
    since: datetime
    """When it entered this state."""
    has_started: bool = False
    """Whether it was ever RUNNING."""
    worker_is_online: bool = False
    message: str = ""
    """The message of its state."""
    is_explained: bool = False
    """Whether its labels have the reason of a failure."""


@dataclass(frozen=True, slots=True)
class Task:
    """An ECS task that a worker has started for a flow run."""

    arn: str
    flow_run_id: UUID | None
    created_at: datetime
    stopped_at: datetime | None = None
    is_stopping: bool = False
    """Whether ECS was asked to stop it."""
    stop_code: str = ""
    reason: str = ""
    """The reason that ECS gives for its stop."""
    exit_code: int | None = None

    @property
    def lives(self) -> bool:
        return self.stopped_at is None


class Ending(StrEnum):
    """The state that the reconciler sets."""

    CRASHED = "Crashed"
    CANCELLED = "Cancelled"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, with a message and a resolution for the submitter."""

    message: str
    resolution: str = ""
    ending: Ending | None = None
    stops_task: bool = False


def judge(run: Run | None, task: Task | None, grace: GracePeriods, now: datetime) -> Verdict | None:
    """None if there is nothing to do, or not yet. `task` is None if ECS knows none."""
    if run is None or run.state in TERMINAL_STATES:
        return _of_ended(run, task, grace, now)
    match run.state:
        case StateType.PENDING:
            return _of_pending(run, task, grace, now)
        case StateType.RUNNING:
            return _of_task_that_is_gone(run, task, grace, now)
        case StateType.CANCELLING:
            return _of_cancelling(run, task, grace, now)
        case _:
            return None


def _of_pending(run: Run, task: Task | None, grace: GracePeriods, now: datetime) -> Verdict | None:
    age = now - run.since
    if task is None or (task.stopped_at is not None and task.stopped_at < run.since - grace.settle):
        # A task that ended long before belongs to an earlier attempt at this run.
        if age <= (grace.silent if run.worker_is_online else grace.lost):
            return None
        return Verdict("No worker has started a task for this job.", _RESUME, Ending.CRASHED)
    if not task.lives:
        return _of_task_that_is_gone(run, task, grace, now)
    if task.is_stopping or age <= grace.silent:
        return None
    return Verdict(
        f"Its task has run for {_minutes(age)}, but the job has not begun.",
        "Resume the job. If it happens again, read the task's log: "
        "the task may not be able to connect to the Prefect server.",
        Ending.CRASHED,
        stops_task=True,
    )


def _of_ended(run: Run | None, task: Task | None, grace: GracePeriods, now: datetime) -> Verdict | None:
    if task is not None and task.lives:
        since = task.created_at if run is None else run.since
        if task.is_stopping or now - since <= grace.settle:
            return None
        return Verdict("Prefect has no such job." if run is None else "Its job has ended.", stops_task=True)
    if run is None or run.state is not StateType.CRASHED or run.is_explained:
        return None
    if task is not None:
        return Verdict(*_how_it_ended(task), Ending.CRASHED)
    return Verdict(run.message, _RESUME, Ending.CRASHED) if run.has_started else None


def _of_cancelling(run: Run, task: Task | None, grace: GracePeriods, now: datetime) -> Verdict | None:
    lives = task is not None and task.lives
    is_stopping = task is not None and task.is_stopping
    if not run.has_started:
        stops = lives and not is_stopping
        return Verdict("The job was cancelled before it began.", ending=Ending.CANCELLED, stops_task=stops)
    age = now - run.since
    if lives:
        if is_stopping or age <= grace.cancel:
            return None
        return Verdict(f"The job was cancelled {_minutes(age)} ago and still runs.", stops_task=True)
    if _gone_for(run, task, now) <= grace.settle:
        return None
    return Verdict("The job was cancelled.", ending=Ending.CANCELLED)


def _of_task_that_is_gone(run: Run, task: Task | None, grace: GracePeriods, now: datetime) -> Verdict | None:
    if (task is not None and task.lives) or _gone_for(run, task, now) <= grace.settle:
        return None
    return Verdict(*_how_it_ended(task), Ending.CRASHED)


def _gone_for(run: Run, task: Task | None, now: datetime) -> timedelta:
    """Since its end or the last change in Prefect, whichever is later: ECS may report late."""
    if task is None or task.stopped_at is None:
        return now - run.since
    return now - max(task.stopped_at, run.since)


def _how_it_ended(task: Task | None) -> tuple[str, str]:
    """The message and the resolution. ECS forgets a task an hour after its end."""
    if task is None:
        return "Its task is gone and did not report how the job ended.", _RESUME
    reason = task.reason.rstrip(".") or "ECS gives no reason"
    if task.stop_code == "TaskFailedToStart":
        return (
            f"Its task did not start: {reason}.",
            "Resume the job. If it happens again, ask the operator to check the image, the network and the "
            "quotas that the message names.",
        )
    if task.stop_code in ("SpotInterruption", "TerminationNotice"):
        return "Its Spot machine was taken away.", "Resume the job, or submit it without `spot`."
    if task.exit_code == _OUT_OF_MEMORY:
        return (
            f"Its task was killed (exit code 137): {reason}.",
            "If the job needs more memory, submit it with a larger `resources.mem_mb`; otherwise resume it.",
        )
    if task.stop_code == "UserInitiated":
        return f"Its task was stopped: {reason}.", _RESUME
    ended = "without an exit code" if task.exit_code is None else f"with exit code {task.exit_code}"
    return f"Its task ended {ended} and did not report how the job ended: {reason}.", _RESUME


def _minutes(age: timedelta) -> str:
    minutes, seconds = divmod(int(age.total_seconds()), 60)
    return f"{minutes} minutes" if minutes > 1 else f"{minutes * 60 + seconds} seconds"
