"""The output of each attempt at a rule job, and why it ran, as log entries of its task run.

What an attempt writes is read while it grows, so that users can follow a long rule job. Prefect gets the
first `HEAD_BYTES` and, when the attempt has ended, the last `TAIL_BYTES`; the whole is published. The
`log:` files of the rule job follow at the end, cut in the same way.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from flows.record.excerpts import LeftOut, excerpt, text_of, whole_lines
from flows.record.mirror import Mirror
from flows.record.redaction import NOTHING, Redaction
from flows.record.shown_paths import ShownPaths
from flows.record.task_runs import JsonObject, log_entry
from flows.snakemake_process.events import (
    ATTEMPT_LOGS,
    AttemptFinished,
    AttemptStarted,
    Outcome,
    WorkflowEvent,
)

HEAD_BYTES = 192 * 1024
TAIL_BYTES = 64 * 1024
_ENTRIES_PER_BATCH = 200
_STEP = 2e-6
_MOMENT = 1e-3


@dataclass(slots=True)
class _Attempt:
    task_run_id: UUID
    started: AttemptStarted
    log_files: tuple[str, ...]
    finished: AttemptFinished | None = None
    is_announced: bool = False
    is_cut: bool = False
    was_stopped: bool = False
    """With the job: that it failed is no failure of its own."""
    read_bytes: int = 0
    kept_log_files: list[str] | None = None
    """What to show of its log files, if the next attempt may overwrite them."""
    last_time: float = 0.0
    """Time of the newest entry. The next is always later, so that sorting by time keeps the order."""


@dataclass
class AttemptLogs:
    """Collects the log entries of one job's attempts."""

    flow_run_id: UUID
    paths: ShownPaths | None = None
    """How paths in logs are shown, and what those of `log:` files are relative to."""
    redaction: Redaction = NOTHING
    _attempts: dict[tuple[int, int], _Attempt] = field(default_factory=dict)

    def observe(self, event: WorkflowEvent, mirror: Mirror) -> None:
        if isinstance(event, AttemptStarted) and (job := mirror.job(event.job_id)):
            self._attempts[event.job_id, event.attempt] = _Attempt(job.task_run_id, event, job.planned.logs)
        elif isinstance(event, AttemptFinished) and (
            attempt := self._attempts.get((event.job_id, event.attempt))
        ):
            attempt.was_stopped = mirror.is_stopped
            if event.will_retry:
                attempt.kept_log_files = list(self._log_files(attempt))
            attempt.finished = event

    def take(self) -> list[JsonObject]:
        """New entries since the last call, about as many as fit into one request."""
        entries: list[JsonObject] = []
        for key, attempt in list(self._attempts.items()):
            finished = attempt.finished  # read before the log file, so that its end is not missed
            entries += self._entries(attempt)
            if finished is not None:
                entries += self._end(attempt, finished)
                del self._attempts[key]
            if len(entries) >= _ENTRIES_PER_BATCH:
                break
        return entries

    def _entries(self, attempt: _Attempt) -> Iterator[JsonObject]:
        if not attempt.is_announced:
            attempt.is_announced = True
            yield self._entry(attempt, logging.INFO, _announcement(attempt.started), attempt.started.time)
        for text in self._read_on(attempt):
            yield self._entry(attempt, logging.INFO, text, time.time())

    def _end(self, attempt: _Attempt, finished: AttemptFinished) -> Iterator[JsonObject]:
        ended = finished.finished_at - _MOMENT
        for text in self._rest(attempt):
            yield self._entry(attempt, logging.INFO, text, ended)
        log_files = attempt.kept_log_files
        for text in self._log_files(attempt) if log_files is None else log_files:
            yield self._entry(attempt, logging.INFO, text, ended)
        if attempt.was_stopped and finished.outcome is Outcome.FAILED:
            text = f"Attempt {finished.attempt} was stopped with the job."
            yield self._entry(attempt, logging.INFO, text, finished.finished_at)
        elif finished.outcome is Outcome.FAILED:
            ending = "It will be retried." if finished.will_retry else "It will not be retried."
            text = f"Attempt {finished.attempt} failed. {ending}\n{finished.message}".rstrip()
            yield self._entry(attempt, logging.ERROR, text, finished.finished_at)

    def _rest(self, attempt: _Attempt) -> Iterator[str]:
        """What was not read while it ran: the end, if that is too much."""
        if attempt.started.log_path is None:
            return
        path = Path(attempt.started.log_path)
        head = max(0, HEAD_BYTES - attempt.read_bytes)
        pieces = excerpt(path, head, TAIL_BYTES, position=attempt.read_bytes, end_of=self.redaction.end_of)
        yield from self._shown(pieces, f"{ATTEMPT_LOGS}/{path.name}")

    def _log_files(self, attempt: _Attempt) -> Iterator[str]:
        if self.paths is None:
            return
        work = self.paths.work
        for path in attempt.log_files:
            pieces = excerpt(work / path, HEAD_BYTES, TAIL_BYTES, within=work, end_of=self.redaction.end_of)
            heading = f"Log file {path}:\n"
            for text in self._shown(pieces, path):
                yield f"{heading}{text}"
                heading = ""

    def _shown(self, pieces: Iterable[str | LeftOut], path: str) -> Iterator[str]:
        """The text of a file that is published as `path`."""
        for piece in pieces:
            match piece:
                case str():
                    yield piece
                case LeftOut():
                    whole = f"/jobs/{self.flow_run_id}/outputs/{quote(path)}"
                    yield f"… {piece.size:,} bytes are left out; at the job's end {whole} has the whole."

    def _entry(self, attempt: _Attempt, level: int, text: str, timestamp: float) -> JsonObject:
        attempt.last_time = max(timestamp, attempt.last_time + _STEP)
        if self.paths is not None:
            text = self.paths.in_text(text)
        shown = self.redaction.text(text)
        return log_entry(self.flow_run_id, attempt.task_run_id, level, shown, attempt.last_time)

    def _read_on(self, attempt: _Attempt) -> Iterator[str]:
        """New whole lines of an attempt that may still run, until enough is shown."""
        if attempt.finished is not None or attempt.started.log_path is None:
            return
        path, end_of = Path(attempt.started.log_path), self.redaction.end_of
        while attempt.read_bytes < HEAD_BYTES and (chunk := whole_lines(path, attempt.read_bytes, end_of)):
            attempt.read_bytes += len(chunk)
            if text := text_of(chunk):
                yield text
        if attempt.read_bytes >= HEAD_BYTES and not attempt.is_cut and whole_lines(path, attempt.read_bytes):
            attempt.is_cut = True
            yield "… It writes more than is shown while it runs; the end follows when it has ended."


def _announcement(started: AttemptStarted) -> str:
    resources = ", ".join(f"{name}={value}" for name, value in started.resources.items())
    lines = [
        f"Attempt {started.attempt}: {started.threads} thread{'s' * (started.threads != 1)}"
        + (f", {resources}" if resources else ""),
        f"Reason: {started.reason}" if started.reason else "",
        f"Command: {started.shell}" if started.shell else "",
    ]
    return "\n".join(line for line in lines if line)
