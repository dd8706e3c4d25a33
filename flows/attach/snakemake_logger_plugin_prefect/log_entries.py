"""The log of a run and of its rule jobs, bounded: the newest lines, and the ends of `log:` files.

What a rule job prints goes to the terminal or the cluster's own files, so Prefect gets what Snakemake
says about it, and its `log:` files when it ends.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from .redaction import Redaction
from .rule_job import Attempt, RuleJob
from .task_runs import JsonObject, log_entry, task_run_id_of

MOST_KEPT = 20_000
HEAD_BYTES = 48 * 1024
TAIL_BYTES = 16 * 1024
_LONGEST_LINE = 32 * 1024
_STEP = 2e-6


@dataclass(frozen=True, slots=True)
class _Entry:
    job_id: int | None
    """Of the rule job; None in the log of the run."""
    level: int
    text: str
    time: float
    log_file: str | None = None
    """A file whose content is to follow the text. It is read when it is sent, never by Snakemake."""


class LogEntries:
    """Written by Snakemake's threads, and sent by another one."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._entries: deque[_Entry] = deque(maxlen=MOST_KEPT)

    def add(self, level: int, text: str, at: float) -> None:
        """A line in the log of the run."""
        self._entries.append(_Entry(None, level, text, at))

    def begin(self, job: RuleJob, attempt: Attempt) -> None:
        """An attempt has begun."""
        self._entries.append(_Entry(job.planned.job_id, logging.INFO, _announcement(attempt), attempt.time))

    def end(self, job: RuleJob, failure: str | None = None) -> None:
        """An attempt has ended: its `log:` files, and why it failed."""
        if job.attempt is None:
            return
        now = time.time()
        for path in job.attempt.log_files:
            text = f"Log file {path}:"
            self._entries.append(_Entry(job.planned.job_id, logging.INFO, text, now, log_file=path))
        if failure is not None:
            will = "will" if job.state.type == "SCHEDULED" else "will not"
            text = f"Attempt {job.attempt.number} failed. It {will} be retried.\n{failure}".rstrip()
            self._entries.append(_Entry(job.planned.job_id, logging.ERROR, text, now + _STEP))

    def take(self, flow_run_id: UUID, limit: int) -> list[JsonObject]:
        """At most `limit` entries to send, oldest first."""
        taken: list[JsonObject] = []
        while self._entries and len(taken) < limit:
            taken += self._lines(flow_run_id, self._entries.popleft())
        return taken

    def __len__(self) -> int:
        return len(self._entries)

    def _lines(self, flow_run_id: UUID, entry: _Entry) -> Iterator[JsonObject]:
        content = None if entry.log_file is None else excerpt(entry.log_file)
        if content == "":
            return
        text = entry.text if content is None else f"{entry.text}\n{self._redaction.text(content)}"
        task_run_id = None if entry.job_id is None else task_run_id_of(flow_run_id, entry.job_id)
        for number, start in enumerate(range(0, len(text), _LONGEST_LINE)):
            piece = text[start : start + _LONGEST_LINE]
            yield log_entry(flow_run_id, task_run_id, entry.level, piece, entry.time + number * _STEP)


def excerpt(path: str) -> str:
    """The text of a file; of a long one, its beginning and its end. Empty if it can't be read."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size <= HEAD_BYTES + TAIL_BYTES:
                return _text(stream.read(HEAD_BYTES + TAIL_BYTES))
            head = stream.read(HEAD_BYTES)
            stream.seek(size - TAIL_BYTES)
            tail = stream.read(TAIL_BYTES)
    except OSError:
        return ""
    left_out = size - HEAD_BYTES - TAIL_BYTES
    return f"{_text(head)}\n… {left_out:,} bytes are left out.\n{_text(tail)}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").rstrip("\n")


def _announcement(attempt: Attempt) -> str:
    resources = ", ".join(f"{name}={value}" for name, value in attempt.resources.items())
    lines = [
        f"Attempt {attempt.number}: {attempt.threads} thread{'s' * (attempt.threads != 1)}"
        + (f", {resources}" if resources else ""),
        f"Reason: {attempt.reason}" if attempt.reason else "",
        f"Command: {attempt.shell}" if attempt.shell else "",
    ]
    return "\n".join(line for line in lines if line)
