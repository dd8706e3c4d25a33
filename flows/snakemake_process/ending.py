"""How Snakemake and the processes below it are ended, first gently and then by force."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

import psutil

GRACE_SECONDS = 4.0
"""Between SIGTERM and SIGKILL for rule jobs."""

CLEAN_UP_SECONDS = 3.0
"""After that, before SIGKILL for Snakemake, which needs 0.7 s to remove outputs and its lock."""

_TERMINATE_SECONDS = (0.0, 0.5, 1.5)
"""A signal between a fork and its exec is lost, so it is sent more than once."""

Step = tuple[float, Callable[[int], None]]
"""A time on the monotonic clock, and what to do then to the process with this id."""


def ending(begin: float, cancel_seconds: float = 0.0) -> list[Step]:
    """The steps that end a driver and all its descendants, starting at `begin`.

    With `cancel_seconds`, the driver first cancels what runs on a cluster, and then ends its own rule jobs
    (`end_rule_jobs`).
    """
    if cancel_seconds:
        # Only the driver gets the signal: it must not end a command that submits or cancels.
        steps: list[Step] = [(begin, _terminate), (begin + cancel_seconds, _kill_below)]
    else:
        steps = _ending_of_rule_jobs(begin, _terminate_group)
    last, _ = steps[-1]
    return [*steps, (last + CLEAN_UP_SECONDS, _kill)]


def end_rule_jobs() -> None:
    """End the processes that Snakemake has started on this machine. It runs in Snakemake's own process."""
    # Not to its group: at its end, Snakemake itself no longer survives the signal.
    for at, step in _ending_of_rule_jobs(time.monotonic(), _terminate_below):
        time.sleep(max(0.0, at - time.monotonic()))
        step(os.getpid())


def _ending_of_rule_jobs(begin: float, terminate: Callable[[int], None]) -> list[Step]:
    return [
        *((begin + seconds, terminate) for seconds in _TERMINATE_SECONDS),
        (begin + GRACE_SECONDS, _kill_below),
    ]


def _terminate_group(driver: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(driver, signal.SIGTERM)


def _terminate(driver: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(driver, signal.SIGTERM)


def _terminate_below(driver: int) -> None:
    _signal_below(driver, signal.SIGTERM)


def _kill_below(driver: int) -> None:
    """Kill the processes that Snakemake has started, so that Snakemake itself can still clean up."""
    _signal_below(driver, signal.SIGKILL)


def _signal_below(driver: int, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)


def _kill(driver: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(driver, signal.SIGKILL)
