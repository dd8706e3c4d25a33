"""Which jobs nobody runs any more, from what a worker can see of them. Pure.

| the worker that started it | flow process | lock of its directory | judgement                |
|----------------------------|--------------|-----------------------|--------------------------|
| this one                   | lives        | –                     | `NOTHING`                |
| is gone                    | lives        | held                  | `WORKER`, to be adopted  |
| is gone                    | is gone      | free                  | `FLOW_PROCESS`           |
| is gone, or unknown        | never was    | never taken           | `BEFORE_ITS_START`       |

The last is lost only if `is_lost` says so as well: its worker may be about to start it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

LOST_AFTER = timedelta(seconds=60)
"""A job that is Pending for longer, and whose worker is offline, was never started."""


class Sign(Enum):
    """What the lock on a job's directory says about its flow process."""

    HELD = auto()
    """It lives."""
    FREE = auto()
    """It has lived, and is gone."""
    NEVER_TAKEN = auto()
    """It has not come so far, or there is none."""


class Lost(Enum):
    """What a job has lost."""

    NOTHING = auto()
    WORKER = auto()
    FLOW_PROCESS = auto()
    BEFORE_ITS_START = auto()


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker sees of a job that Prefect has as neither waiting nor final."""

    is_ours: bool
    """This worker has its flow process, or is about to have it."""
    is_cancelling: bool
    sign: Sign

    @property
    def is_to_be_cancelled(self) -> bool:
        """Whether somebody can still be asked to cancel it."""
        return self.is_cancelling and (self.is_ours or self.sign is Sign.HELD)


@dataclass(frozen=True, slots=True)
class Start:
    """What Prefect knows about the start of a job whose directory was never locked."""

    age: timedelta
    """Of its state."""
    has_run: bool
    worker: str | None
    """The name of the worker that has taken it."""


def sign_of(holder: int | None) -> Sign:
    """From `Workspace.holder`: a pid, 0 for a process that is gone, None where there was none."""
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
    """Whether it is worth asking Prefect which workers are online.

    A job that has run without a lock is of another kind of worker, unless this one has started it:
    then the machine went down between its start and the lock.
    """
    return start.age >= LOST_AFTER and (not start.has_run or start.worker == this_worker)


def is_lost(start: Start, online: Collection[str], *, this_worker: str) -> bool:
    """Whether nobody will start it. This worker has looked into its own table already."""
    return may_be_lost(start, this_worker=this_worker) and (
        start.worker == this_worker or start.worker not in online
    )
