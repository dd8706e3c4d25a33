"""Snakemake logger plugin `prefect-events`: reports Snakemake's messages as workflow events.

    snakemake --executor prefect --logger prefect-events --logger-prefect-events-file events.jsonl

The plugin `prefect`, of `flows/attach`, is for a Snakemake that the service did not start.
`snakemake_executor_plugin_prefect` reports rule jobs. This plugin reports messages and errors, and
skips records that would report rule jobs twice.
"""

import time
from dataclasses import dataclass, field
from logging import Handler, LogRecord
from pathlib import Path
from typing import Optional

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import ErrorRaised, Message

_REPORTED_BY_EXECUTOR = frozenset(LogEvent) - {LogEvent.ERROR, LogEvent.RUN_INFO, LogEvent.WORKFLOW_STARTED}
_NOISE = ("Select jobs to execute", "Complete log")


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):  # type: ignore[misc]  # untyped base
    file: Optional[Path] = field(  # noqa: UP045 - Snakemake supports no other form
        default=None, metadata={"help": "File to which to append one JSON line per event.", "required": False}
    )


class LogHandler(LogHandlerBase):  # type: ignore[misc]  # untyped base
    """Turns Snakemake's log records into `Message` and `ErrorRaised`."""

    def __post_init__(self) -> None:
        if not hasattr(self, "level"):  # the interface of Snakemake 9.0 does not initialize `logging.Handler`
            Handler.__init__(self)
        path = self.settings.file if self.settings else None
        if path is not None and not emitter.is_open:
            emitter.open(path.open("ab"))

    def emit(self, record: LogRecord) -> None:
        event = getattr(record, "event", None)
        text = record.getMessage() if record.msg else ""
        if event == LogEvent.ERROR:
            emitter.emit(
                ErrorRaised(time=record.created, exception=getattr(record, "exception", "") or "", text=text)
            )
        elif event not in _REPORTED_BY_EXECUTOR and text.strip() and not text.startswith(_NOISE):
            emitter.emit(Message(time=record.created or time.time(), level=record.levelname, text=text))

    @property
    def writes_to_stream(self) -> bool:
        return False

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        # A plugin without its own filter gets Snakemake's, which drops events.
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False
