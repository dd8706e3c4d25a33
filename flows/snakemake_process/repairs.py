"""What we change in Snakemake, in its own process and as far as its version has it.

| what                       | versions | why                                                         |
|----------------------------|----------|-------------------------------------------------------------|
| SIGTERM without a deadlock | all      | its handler waits for a lock that its own thread holds      |
| linear scheduling          | 9.14 on  | rounds are quadratic (`flows.snakemake_process.scheduling`) |
| a handler for messages     | 8.x      | it has no logger plugins                                    |
| software made one by one   | all      | two jobs destroy each other's conda environment             |

`tests/contracts` and the matrix of versions hold on to the private names that this is built on.
"""

import importlib
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from types import ModuleType
from typing import Any

from flows.snakemake_process import software
from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import ErrorRaised, Message

_LINEAR_SCHEDULING_FROM = (9, 14)
_LOGGER_PLUGINS_FROM = (9, 0)


def snakemake_version() -> tuple[int, int]:
    """Major and minor of the Snakemake in this environment."""
    major, minor, *_ = version("snakemake").split(".")
    return int(major), int(minor)


def has_logger_plugins() -> bool:
    """Whether `--logger` is an option of this Snakemake."""
    return snakemake_version() >= _LOGGER_PLUGINS_FROM


def apply() -> Iterator[str]:
    """Change Snakemake; call it once. Gives a note for each change that this version does not take."""
    _scheduler_module().JobScheduler.exit_gracefully = _exit_gracefully
    if snakemake_version() >= _LINEAR_SCHEDULING_FROM:
        importlib.import_module("flows.snakemake_process.scheduling").install()
    else:
        yield (
            f"Snakemake {version('snakemake')} schedules by its own, slower rounds: "
            "with thousands of rule jobs, use Snakemake 9.14 or newer."
        )
    if not has_logger_plugins():
        _listen_to_old_logger()
    software.install()


def _scheduler_module() -> ModuleType:
    """It moved in 9.8."""
    for name in ("snakemake.scheduling.job_scheduler", "snakemake.scheduler"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ImportError(f"Snakemake {version('snakemake')} has no scheduler where we know it")


def _exit_gracefully(scheduler: Any, *_: Any) -> None:
    """Snakemake's handler for SIGTERM without its deadlock.

    The handler takes a lock that the interrupted main thread holds most of the time in a big
    workflow (`JobScheduler.exit_gracefully`), and waits for itself. Assigning is atomic and needs
    no lock; releasing the semaphore happens in a thread, because its own lock is not reentrant either.
    """
    scheduler._user_kill = "graceful"
    threading.Thread(target=scheduler._open_jobs.release, daemon=True).start()


def _listen_to_old_logger() -> None:
    """Before 9.0, Snakemake hands each message to handlers as a dict (`snakemake.logging.Logger`)."""
    logger: Any = importlib.import_module("snakemake.logging").logger
    plain_setup = importlib.import_module("snakemake.logging").setup_logger

    def setup_logger(*args: Any, **kwargs: Any) -> None:
        plain_setup(*args, **kwargs)
        if _emit_old_message not in logger.log_handler:  # it is set up more than once
            logger.log_handler.append(_emit_old_message)

    for name in ("snakemake.logging", "snakemake.cli", "snakemake.api"):
        module = importlib.import_module(name)
        if hasattr(module, "setup_logger"):
            module.setup_logger = setup_logger  # type: ignore[attr-defined]  # foreign module


def _emit_old_message(message: dict[str, Any]) -> None:
    text = str(message.get("msg") or "").strip()
    if not text:
        return
    if message.get("level") == "error":
        # "RuleException:\nCalledProcessError in …": the first word is the exception's class.
        first = text.split(None, 1)[0].rstrip(":")
        exception = first if first.isidentifier() and first.endswith(("Exception", "Error")) else ""
        emitter.emit(ErrorRaised(time=time.time(), exception=exception, text=text))
    elif message.get("level") in ("info", "warning"):
        emitter.emit(Message(time=time.time(), level=str(message["level"]).upper(), text=text))
