"""The output of each attempt at a rule job, and why it ran, as log entries of its task run.

Log files are read while they grow, so that users can follow a long rule job. Prefect gets at most
`SHOWN_BYTES` per attempt; the whole log stays in the job's directory.
"""

import codecs
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from flows.contract.job_files import open_file
from flows.record.mirror import Mirror
from flows.record.redaction import NOTHING, Redaction
from flows.record.task_runs import JsonObject, log_entry
from flows.snakemake_process.events import AttemptFinished, AttemptStarted, Outcome, WorkflowEvent

SHOWN_BYTES = 256 * 1024
_CHUNK_BYTES = 32 * 1024
_ENTRIES_PER_BATCH = 200
_STEP = 2e-6
_MOMENT = 1e-3


@dataclass(slots=True)
class _Attempt:
    task_run_id: UUID
    started: AttemptStarted
    finished: AttemptFinished | None = None
    is_announced: bool = False
    is_cut: bool = False
    read_bytes: int = 0
    last_time: float = 0.0
    """Time of the newest entry. The next is always later, so that sorting by time keeps the order."""


@dataclass
class AttemptLogs:
    """Collects the log entries of one job's attempts."""

    flow_run_id: UUID
    redaction: Redaction = NOTHING
    _attempts: dict[tuple[int, int], _Attempt] = field(default_factory=dict)

    def observe(self, event: WorkflowEvent, mirror: Mirror) -> None:
        if isinstance(event, AttemptStarted) and (job := mirror.job(event.job_id)):
            self._attempts[event.job_id, event.attempt] = _Attempt(job.task_run_id, event)
        elif isinstance(event, AttemptFinished) and (
            attempt := self._attempts.get((event.job_id, event.attempt))
        ):
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
        if attempt.started.log_path is None:
            return
        for text in self._read_on(Path(attempt.started.log_path), attempt):
            ended = attempt.finished.finished_at - _MOMENT if attempt.finished else time.time()
            yield self._entry(attempt, logging.INFO, text, ended)

    def _end(self, attempt: _Attempt, finished: AttemptFinished) -> Iterator[JsonObject]:
        if finished.outcome is Outcome.FAILED:
            ending = "It will be retried." if finished.will_retry else "It will not be retried."
            text = f"Attempt {finished.attempt} failed. {ending}\n{finished.message}".rstrip()
            yield self._entry(attempt, logging.ERROR, text, finished.finished_at)

    def _entry(self, attempt: _Attempt, level: int, text: str, timestamp: float) -> JsonObject:
        attempt.last_time = max(timestamp, attempt.last_time + _STEP)
        shown = self.redaction.text(text)
        return log_entry(self.flow_run_id, attempt.task_run_id, level, shown, attempt.last_time)

    def _read_on(self, path: Path, attempt: _Attempt) -> Iterator[str]:
        """New text in the attempt's log since the last call, in whole lines if possible."""
        while attempt.read_bytes < SHOWN_BYTES and (chunk := _chunk(path, attempt, self.redaction)):
            attempt.read_bytes += len(chunk)
            if text := chunk.decode("utf-8", "replace").replace("\x00", "\ufffd").removesuffix("\n"):
                yield text
        if attempt.read_bytes >= SHOWN_BYTES and not attempt.is_cut and _chunk(path, attempt, self.redaction):
            attempt.is_cut = True
            yield f"… more in {path.name} in the job's directory"


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file; empty if there is no file."""
    try:
        with open_file(path) as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _CHUNK_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _announcement(started: AttemptStarted) -> str:
    resources = ", ".join(f"{name}={value}" for name, value in started.resources.items())
    lines = [
        f"Attempt {started.attempt}: {started.threads} thread{'s' * (started.threads != 1)}"
        + (f", {resources}" if resources else ""),
        f"Reason: {started.reason}" if started.reason else "",
        f"Command: {started.shell}" if started.shell else "",
    ]
    return "\n".join(line for line in lines if line)


def _chunk(path: Path, attempt: _Attempt, redaction: Redaction) -> bytes:
    """The next bytes to show. They end after a line, or at least after a character and outside a secret."""
    try:
        with open_file(path) as stream:
            stream.seek(attempt.read_bytes)
            chunk = stream.read(_CHUNK_BYTES)
    except OSError:
        return b""
    is_full = len(chunk) == _CHUNK_BYTES
    if attempt.finished is not None and not is_full:
        return chunk
    if lines := chunk[: chunk.rfind(b"\n") + 1]:
        return lines
    if not is_full:
        return b""
    shown = chunk[: redaction.end_of(chunk) or len(chunk)]
    return shown[: len(shown) - _unfinished(shown)]


def _unfinished(chunk: bytes) -> int:
    """Number of bytes at the end that belong to an incomplete character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(chunk)
    return len(decoder.getstate()[0])
