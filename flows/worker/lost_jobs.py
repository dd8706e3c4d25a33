"""Decides which jobs are lost, from what a worker knows about them. Pure.

| the worker that started it | flow process  | lock of its directory | the job has lost         |
|----------------------------|---------------|-----------------------|--------------------------|
| this one                   | runs          | –                     | `NOTHING`                |
| is gone                    | runs          | held                  | `WORKER`, is adopted     |
| is gone                    | is gone       | free                  | `FLOW_PROCESS`           |
| is gone, or unknown        | never existed | never taken           | `BEFORE_ITS_START`       |

In the last case, `is_lost` must confirm it: the job's worker may be about to start it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

LOST_AFTER = timedelta(seconds=60)
"""A job that has been Pending for longer, and whose worker is offline, was never started."""


class Sign(Enum):
    """The state of a job's flow process, from the lock on the job's directory."""

    HELD = auto()
    """It is running."""
    FREE = auto()
    """It has run, and is gone."""
    NEVER_TAKEN = auto()
    """It has not taken the lock yet, or there is none."""


class Lost(Enum):
    """What a job has lost."""

    NOTHING = auto()
    WORKER = auto()
    FLOW_PROCESS = auto()
    BEFORE_ITS_START = auto()


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker knows about a job that is neither scheduled nor final in Prefect."""

    is_ours: bool
    """This worker has started its flow process, or is about to."""
    is_cancelling: bool
    sign: Sign

    @property
    def is_to_be_cancelled(self) -> bool:
        """Whether there is a process that can cancel it."""
        return self.is_cancelling and (self.is_ours or self.sign is Sign.HELD)


@dataclass(frozen=True, slots=True)
class Start:
    """What Prefect knows about the start of a job whose directory was never locked."""

    age: timedelta
    """Time since it entered its state."""
    is_of_before: bool
    """It entered its state before this worker began."""
    has_run: bool
    worker: str | None
    """The name of the worker that received it."""


def sign_of(holder: int | None) -> Sign:
    """From `Workspace.holder`: a pid, 0 if the process is gone, None if there never was one."""
    match holder:
        case None:
            return Sign.NEVER_TAKEN
        case 0:
            return Sign.FREE
        case _:
            return Sign.HELD


def judge(found: Found) -> Lost:
    if found.is_ours:
        return Lost.NOTHING
    match found.sign:
        case Sign.HELD:
            return Lost.WORKER
        case Sign.FREE:
            return Lost.FLOW_PROCESS
        case Sign.NEVER_TAKEN:
            return Lost.BEFORE_ITS_START


def may_be_lost(start: Start, *, this_worker: str) -> bool:
    """Whether to ask Prefect which workers are online.

    A job that has run without a lock belongs to another type of worker, unless this worker started it:
    then the machine went down between its start and the lock.
    """
    is_unclaimed_here = start.is_of_before and start.worker in (None, this_worker)
    return (start.age >= LOST_AFTER or is_unclaimed_here) and (
        not start.has_run or start.worker == this_worker
    )


def is_lost(start: Start, online: Collection[str], *, this_worker: str) -> bool:
    """Whether no worker will start it. The caller has checked that this worker is not about to.

    Where nobody knows which worker received it, it is lost at once if there is no other.
    """
    if not may_be_lost(start, this_worker=this_worker):
        return False
    if start.worker is None and start.age < LOST_AFTER:
        return not set(online) - {this_worker}
    return start.worker == this_worker or start.worker not in online
