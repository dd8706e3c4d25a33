"""Our changes to Snakemake, applied in its own process if its version needs them.

| what                       | versions | why                                                         |
|----------------------------|----------|-------------------------------------------------------------|
| SIGTERM without a deadlock | all      | its handler waits for a lock that its own thread holds      |
| linear scheduling          | 9.14 on  | rounds are quadratic (`flows.snakemake_process.scheduling`) |
| a handler for messages     | 8.x      | it has no logger plugins                                    |
| a lock to create software  | all      | two jobs destroy each other's conda environment             |
| lines of syntax errors     | all      | its report of the error raises a KeyError                   |

This relies on private names. `tests/flows/environments/test_versions.py` checks them in each version.
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
from flows.snakemake_process.ending import end_rule_jobs
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
    """Apply the changes; call it once. Yields a note for each one that does not work in this version."""
    _scheduler_module().JobScheduler.exit_gracefully = _exit_gracefully
    if snakemake_version() >= _LINEAR_SCHEDULING_FROM:
        importlib.import_module("flows.snakemake_process.scheduling").install()
    else:
        yield (
            f"Snakemake {version('snakemake')} is slow with thousands of rule jobs: "
            "for such a workflow, use Snakemake 9.14 or newer."
        )
    if not has_logger_plugins():
        _listen_to_old_logger()
    software.install()
    _report_lines_of_syntax_errors()


def _scheduler_module() -> ModuleType:
    """The module of the scheduler, which moved in 9.8."""
    for name in ("snakemake.scheduling.job_scheduler", "snakemake.scheduler"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ImportError(f"Snakemake {version('snakemake')} has no scheduler module under a known name")


def _exit_gracefully(scheduler: Any, *_: Any) -> None:
    """Snakemake's handler for SIGTERM, without the deadlock.

    Snakemake's own handler (`JobScheduler.exit_gracefully`) takes a lock that the interrupted main thread
    holds most of the time in a big workflow, and so waits for itself. The assignment is atomic and needs
    no lock. A thread releases the semaphore, because the semaphore's lock is not reentrant either.
    """
    was_told = scheduler._user_kill is not None
    scheduler._user_kill = "graceful"
    threading.Thread(target=scheduler._open_jobs.release, daemon=True).start()
    executor = getattr(scheduler, "_executor", None)
    if hasattr(executor, "stop") and not was_told:
        threading.Thread(target=_stop_cluster, args=[executor], daemon=True).start()


def _stop_cluster(executor: Any) -> None:
    """End what runs on the cluster, for which Snakemake would wait, and then local rule jobs."""
    executor.stop()
    end_rule_jobs()  # not before: it also ends commands that submit and cancel


class _SourceLines(dict[int, int]):
    """Lines of a Snakefile by lines of the Python that it becomes. While it is parsed, they are the same."""

    def __missing__(self, line: int) -> int:
        return line


def _report_lines_of_syntax_errors() -> None:
    """Let Snakemake report an error in a line that it has not translated yet (`exceptions.format_error`)."""
    exceptions: Any = importlib.import_module("snakemake.exceptions")
    plain = exceptions.format_error

    def format_error(error: Any, line: Any, linemaps: Any = None, **options: Any) -> str:
        known = {file: _SourceLines(lines) for file, lines in (linemaps or {}).items()}
        # Snakemake cuts messages at a parenthesis, and adds the text of the line, which it may not know.
        return str(plain(error, line, linemaps=known, **options)).replace(":\nNone", "")

    exceptions.format_error = format_error


def _listen_to_old_logger() -> None:
    """Before 9.0, Snakemake passes each message to handlers as a dict (`snakemake.logging.Logger`)."""
    logger: Any = importlib.import_module("snakemake.logging").logger
    plain_setup = importlib.import_module("snakemake.logging").setup_logger

    def setup_logger(*args: Any, **kwargs: Any) -> None:
        plain_setup(*args, **kwargs)
        if _emit_old_message not in logger.log_handler:  # this is called more than once
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
