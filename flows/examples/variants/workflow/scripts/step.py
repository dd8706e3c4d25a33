"""What every script of this workflow shares: what Snakemake hands to it, and its log."""

import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

LOGGER_NAME = "variants"


class Step(Protocol):
    """The rule job that a script is to do, as Snakemake hands it over.

    Files and parameters are attributes under the names that the rule gives them
    (https://snakemake.readthedocs.io/en/stable/snakefiles/rules.html#python).
    """

    input: Any
    output: Any
    params: Any
    wildcards: Any
    threads: int
    log: list[str]


def open_log(step: Step) -> logging.Logger:
    """Let a step report to whoever reads its log file later and to whoever watches it now.

    From here on an uncaught exception is written to both places too: Python alone would show it
    on standard error only.
    """
    log = logging.getLogger(LOGGER_NAME)
    log.setLevel(logging.INFO)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    for handler in (logging.FileHandler(Path(step.log[0]), mode="w"), logging.StreamHandler()):
        handler.setFormatter(formatter)
        log.addHandler(handler)
    sys.excepthook = _log_uncaught
    return log


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    logging.getLogger(LOGGER_NAME).critical("step failed", exc_info=(kind, error, traceback))
