"""The log of the facade: one line per event, as text or JSON, with the id of the job it is about.

Lines contain no headers, bodies or queries, and so no tokens, secrets or webhook addresses.
"""

import logging
import sys
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from api.operation.observation import job_id_of_request
from api.settings import LogFormat
from flows.contract.control_characters import shown


def configure_logs(log_format: LogFormat, stream: TextIO = sys.stderr) -> None:
    """Sends everything that this process logs to `stream`, from INFO on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(log_format))
    handler.addFilter(_add_job_id)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # It logs every request: those to Prefect are too many, and those to webhooks contain their addresses.
    logging.getLogger("httpx").setLevel(logging.WARNING)


class _OneLineMessages(logging.Formatter):
    """Escapes line breaks in messages, which may quote a client: they would forge log lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return shown(super().formatMessage(record), lines=False)


def _formatter(log_format: LogFormat) -> logging.Formatter:
    match log_format:
        case LogFormat.TEXT:
            return _OneLineMessages("%(asctime)s %(levelname)s %(name)s: %(message)s")
        case LogFormat.JSON:
            return JsonFormatter(
                "{levelname}{name}{message}{job_id}",
                style="{",
                timestamp="timestamp",
                reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's own copy of the message
                rename_fields={"levelname": "level", "name": "logger"},
            )


def _add_job_id(record: logging.LogRecord) -> bool:
    if not hasattr(record, "job_id"):
        record.job_id = job_id_of_request.get()
    return True
