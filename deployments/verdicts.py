"""What has to be done about a job, by what Prefect believes of it and what ECS says of its task. Pure.

| Prefect            | its task                           | verdict                                |
|--------------------|------------------------------------|----------------------------------------|
| PENDING            | none, and its worker is gone       | Crashed after `lost`                   |
|                    | none, and its worker is there      | Crashed after `silent`                 |
|                    | lives                              | stopped, and Crashed, after `silent`   |
| PENDING, RUNNING   | has ended or is gone               | Crashed after `settle`                 |
| RUNNING            | lives                              | –                                      |
| CANCELLING, before it ran  | any                        | stopped, and Cancelled, at once        |
| CANCELLING, running        | lives                      | stopped after `cancel`                 |
|                    | has ended or is gone               | Cancelled after `settle`               |
| CRASHED, without a reason  | has ended or is gone       | the reason is added                    |
| final, or no such run      | lives                      | stopped after `settle`                 |
| SCHEDULED, PAUSED  | any                                | –                                      |

A verdict may be passed again and again, and by several at once: each part of it is done once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from prefect.client.schemas.objects import TERMINAL_STATES, StateType

_RESUME = "Resume the job."
_OUT_OF_MEMORY = 137  # 128 and SIGKILL, which is also how Linux takes memory back


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take that end well without anybody's help."""

    settle: timedelta
    """What has just happened is on its way to Prefect, and a process needs to end."""
    lost: timedelta
    """A job waits for the task that a worker which is gone should have started."""
    silent: timedelta
    """The same of a worker that is there; and a task has been started and its job hasn't."""
    cancel: timedelta
    """A running job ends by itself after a cancel: its rule jobs are stopped, its logs kept."""


@dataclass(frozen=True, slots=True)
class Run:
    """A flow run, as Prefect knows it."""

    id: UUID
    state: StateType
    since: datetime
    """When it came into this state."""
    has_started: bool = False
    """Whether it was ever RUNNING."""
    worker_is_online: bool = False
    message: str = ""
    """What its state says."""
    is_explained: bool = False
    """Whether labels tell why it failed."""


@dataclass(frozen=True, slots=True)
class Task:
    """An ECS task that a worker has started for a flow run."""

    arn: str
    flow_run_id: UUID | None
    created_at: datetime
    stopped_at: datetime | None = None
    is_stopping: bool = False
    """ECS has been told to stop it."""
    stop_code: str = ""
    reason: str = ""
    """Why ECS says that it stopped."""
    exit_code: int | None = None

    @property
    def lives(self) -> bool:
        return self.stopped_at is None


class Ending(StrEnum):
    """How a job ends that can't end itself."""

    CRASHED = "Crashed"
    CANCELLED = "Cancelled"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done, and why, for people."""

    message: str
    resolution: str = ""
    ending: Ending | None = None
    stops_task: bool = False


def judge(run: Run | None, task: Task | None, patience: Patience, now: datetime) -> Verdict | None:
    """None where nothing has to be done, or not yet. `task` is None where ECS knows of none."""
    if run is None or run.state in TERMINAL_STATES:
        return _of_ended(run, task, patience, now)
    match run.state:
        case StateType.PENDING:
            return _of_pending(run, task, patience, now)
        case StateType.RUNNING:
            return _of_task_that_is_gone(run, task, patience, now)
        case StateType.CANCELLING:
            return _of_cancelling(run, task, patience, now)
        case _:
            return None


def _of_pending(run: Run, task: Task | None, patience: Patience, now: datetime) -> Verdict | None:
    age = now - run.since
    if task is None or (task.stopped_at is not None and task.stopped_at < run.since - patience.settle):
        # A task that had ended well before is that of an earlier attempt at this run.
        if age <= (patience.silent if run.worker_is_online else patience.lost):
            return None
        return Verdict("No worker has started a task for this job.", _RESUME, Ending.CRASHED)
    if not task.lives:
        return _of_task_that_is_gone(run, task, patience, now)
    if task.is_stopping or age <= patience.silent:
        return None
    return Verdict(
        f"Its task has run for {_minutes(age)} and the job has not begun.",
        "Resume the job. If it happens again, the task's log says what it waits for: "
        "it may not reach the Prefect server.",
        Ending.CRASHED,
        stops_task=True,
    )


def _of_ended(run: Run | None, task: Task | None, patience: Patience, now: datetime) -> Verdict | None:
    if task is not None and task.lives:
        since = task.created_at if run is None else run.since
        if task.is_stopping or now - since <= patience.settle:
            return None
        return Verdict("Prefect has no such job." if run is None else "Its job has ended.", stops_task=True)
    if run is None or run.state is not StateType.CRASHED or run.is_explained:
        return None
    if task is not None:
        return Verdict(*_how_it_ended(task), Ending.CRASHED)
    return Verdict(run.message, _RESUME, Ending.CRASHED) if run.has_started else None


def _of_cancelling(run: Run, task: Task | None, patience: Patience, now: datetime) -> Verdict | None:
    lives = task is not None and task.lives
    is_stopping = task is not None and task.is_stopping
    if not run.has_started:
        stops = lives and not is_stopping
        return Verdict("The job was cancelled before it began.", ending=Ending.CANCELLED, stops_task=stops)
    age = now - run.since
    if lives:
        if is_stopping or age <= patience.cancel:
            return None
        return Verdict(f"The job was cancelled {_minutes(age)} ago and still runs.", stops_task=True)
    if _gone_for(run, task, now) <= patience.settle:
        return None
    return Verdict("The job was cancelled.", ending=Ending.CANCELLED)


def _of_task_that_is_gone(run: Run, task: Task | None, patience: Patience, now: datetime) -> Verdict | None:
    if (task is not None and task.lives) or _gone_for(run, task, now) <= patience.settle:
        return None
    return Verdict(*_how_it_ended(task), Ending.CRASHED)


def _gone_for(run: Run, task: Task | None, now: datetime) -> timedelta:
    """Since its end, or since Prefect told anything new of it: what ECS tells may come late."""
    if task is None or task.stopped_at is None:
        return now - run.since
    return now - max(task.stopped_at, run.since)


def _how_it_ended(task: Task | None) -> tuple[str, str]:
    """What a submitter can read, and what to do. ECS forgets a task an hour after its end."""
    if task is None:
        return "Its task is gone, and did not say how the job ended.", _RESUME
    told = task.reason.rstrip(".") or "ECS gives no reason"
    if task.stop_code == "TaskFailedToStart":
        return (
            f"Its task did not start: {told}.",
            "Resume the job. If it happens again, the operator looks at the image, the network and the "
            "quotas that the message names.",
        )
    if task.stop_code in ("SpotInterruption", "TerminationNotice"):
        return "Its Spot machine was taken away.", "Resume the job, or submit it without `spot`."
    if task.exit_code == _OUT_OF_MEMORY:
        return (
            f"Its task was killed (exit code 137): {told}.",
            "If the job needs more memory than it had, submit it with a larger `resources.mem_mb`; "
            "otherwise resume it.",
        )
    if task.stop_code == "UserInitiated":
        return f"Its task was stopped: {told}.", _RESUME
    ended = "without an exit code" if task.exit_code is None else f"with exit code {task.exit_code}"
    return f"Its task ended {ended} and did not say how the job ended: {told}.", _RESUME


def _minutes(age: timedelta) -> str:
    minutes, seconds = divmod(int(age.total_seconds()), 60)
    return f"{minutes} minutes" if minutes > 1 else f"{minutes * 60 + seconds} seconds"
