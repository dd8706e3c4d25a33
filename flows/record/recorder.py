"""Sends the states of a mirror to Prefect, from its own thread.

- The workflow never waits for Prefect: what Prefect can't accept yet stays in the mirror.
- Prefect's server keeps events in memory, at most 10,000 per reader, and drops the rest without
  an error. So at most about `UNCONFIRMED_LIMIT` state changes are in flight: then the recorder
  waits until the server has recorded the last of them.
- `close` compares its states with those of the server and resends missing ones. Only then may the
  flow run become final.
- The progress that clients see is the number of completed rule jobs that were sent. It goes with the other
  labels, in one request.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

import httpx
import orjson
from prefect.client.orchestration import SyncPrefectClient

from flows.contract.spec import Label
from flows.record import pace
from flows.record.artifacts import Artifacts, ProgressArtifact
from flows.record.attempt_logs import AttemptLogs
from flows.record.mirror import Ending, Mirror, Progress
from flows.record.redaction import NOTHING, Redaction
from flows.record.shown_paths import ShownPaths
from flows.record.task_runs import JsonObject, log_entry
from flows.snakemake_process.events import Message, WorkflowEvent

_AGAIN_SECONDS = 0.25
"""First pause while the server is away, and each while it has to record what it has."""
FIRST_LOOK_SECONDS = 0.04
"""First interval at which `close` checks whether everything is recorded: short for small jobs, it grows."""
BATCH = 200
"""State changes per request; also Prefect's maximum number of rows per read."""
UNCONFIRMED_LIMIT = 1_000
PROGRESS_SECONDS = 1.0
CLOSE_TIMEOUT_SECONDS = 600.0
"""How long `close` waits for Prefect to record anything new."""
RESEND_AFTER_SECONDS = 5.0
"""If no new rule job is recorded for this long, `close` searches for lost ones; twice as long each time."""
MOST_RESEND_AFTER_SECONDS = 60.0
_MESSAGES_KEPT = 20_000
_FINAL_STATES = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]

Result = TypeVar("Result")

logger = logging.getLogger("prefect.flow_runs.recorder")


class RecordError(Exception):
    """Prefect did not record every rule job, so the job's counts would be wrong."""


class Recorder:
    """Sends the states of a mirror to Prefect. Leave the context only after `close`."""

    def __init__(
        self, client: SyncPrefectClient, flow_run_id: UUID, artifacts: Artifacts | None = None
    ) -> None:
        """With `artifacts`, one of them shows the progress."""
        self.mirror = Mirror(flow_run_id)
        self.redaction = NOTHING
        self.labels: dict[Label, str | int] = {}
        """All that were set."""
        self._artifact = None if artifacts is None else ProgressArtifact(artifacts)
        self._prefect = _Prefect(client, flow_run_id)
        self._attempt_logs = AttemptLogs(flow_run_id)
        self._messages: deque[JsonObject] = deque(maxlen=_MESSAGES_KEPT)
        self._unsent_changes: list[JsonObject] = []
        self._unsent_logs: list[JsonObject] = []
        self._unsent_labels: dict[Label, str | int] = {}
        self._in_flight = _InFlight()
        self._shown_progress = Progress(done=0, total=0)
        self._next_progress = 0.0
        self._began = time.monotonic()
        self._is_behind = False
        """Whether the server must record what it has before it gets more."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def redact(self, redaction: Redaction) -> None:
        """From now on, replace these secrets in everything that goes to Prefect. Events come redacted."""
        self.redaction = self._attempt_logs.redaction = redaction

    def observe(self, event: WorkflowEvent) -> None:
        """Process an event; never blocks on Prefect."""
        self.mirror.observe(event)
        self._attempt_logs.observe(event, self.mirror)
        if isinstance(event, Message):
            self.log(logging.getLevelNamesMapping().get(event.level, logging.INFO), event.text, event.time)

    def show(self, paths: ShownPaths) -> None:
        """Show the `log:` files of rule jobs, whose paths are relative to `paths.work`."""
        self._attempt_logs.paths = paths

    def log(self, level: int, message: str, timestamp: float | None = None) -> None:
        """Add an entry to the log of the job."""
        at = time.time() if timestamp is None else timestamp
        text = self.redaction.text(message)
        self._messages.append(log_entry(self.mirror.flow_run_id, None, level, text, at))

    def label(self, labels: Mapping[Label, str | int]) -> None:
        """Set labels of the job's flow run."""
        self.labels.update(labels)
        self._unsent_labels.update(labels)

    def close(self, ending: Ending, meanwhile: Callable[[], object] = lambda: None) -> None:
        """End every rule job, and return when Prefect has recorded everything.

        `meanwhile` is called once, when everything is sent for the first time. Raises `RecordError` when
        nothing more was recorded for `CLOSE_TIMEOUT_SECONDS`.
        """
        self._stop.set()
        self._thread.join()
        self.mirror.close(ending, time.time())
        self._next_progress = 0.0
        deadline = time.monotonic() + CLOSE_TIMEOUT_SECONDS
        last_recorded, last_change = -1, time.monotonic()
        pause, patience = FIRST_LOOK_SECONDS, RESEND_AFTER_SECONDS
        is_sent = False
        while True:
            if time.monotonic() > deadline:
                raise RecordError(f"Prefect has recorded {last_recorded} of {len(self.mirror)} rule jobs.")
            is_flushed = self._try(self._send)
            if is_flushed and not is_sent:
                is_sent = True
                meanwhile()
            recorded = self._try(self._prefect.count_final) if is_flushed else None
            if recorded is None:
                time.sleep(1)
                continue
            if recorded >= len(self.mirror) and not self._has_more() and self._try(self._finish_progress):
                break
            if recorded != last_recorded:
                last_recorded, last_change = recorded, time.monotonic()
                deadline = last_change + CLOSE_TIMEOUT_SECONDS
            elif time.monotonic() - last_change > patience:
                self._resend_lost()
                last_change = time.monotonic()
                # A server that is only slow must not get the same thousands of states every few seconds.
                patience = min(patience * 2, MOST_RESEND_AFTER_SECONDS)
            time.sleep(pause)
            pause = min(pause * 1.3, _AGAIN_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause = pace.tick(0)
        while not self._stop.wait(pause):
            began = time.monotonic()
            if not self._try(self._send):
                # While Prefect is unreachable, send fewer requests, and let the workflow continue.
                pause = min(pause * 2, pace.LONGEST)
            elif self._is_behind:
                pause = _AGAIN_SECONDS
            else:
                pause = pace.pause(self._age, time.monotonic() - began)

    @property
    def _age(self) -> float:
        return time.monotonic() - self._began

    def _send(self) -> bool:
        """Send everything that is due. Returns True, because `_try` returns None on an error.

        It sends some of each kind in turn, and leaves what becomes due meanwhile for the next time, so
        that requests are few and large.
        """
        has_more = True
        while has_more:
            has_more_changes, has_more_logs = self._send_changes(), self._send_logs()
            has_more = has_more_changes or has_more_logs
            if time.monotonic() >= self._next_progress:
                self._show_progress()
                if self._shown_progress.total:
                    self._next_progress = time.monotonic() + PROGRESS_SECONDS
            self._send_labels()
        return True

    def _send_changes(self) -> bool:
        """Send the next states. Returns whether there may be more."""
        self._is_behind = not self._unsent_changes and not self._may_send()
        if not self._unsent_changes and not self._is_behind:
            self._unsent_changes = self.mirror.due(time.time(), BATCH, pace.shown_as_running(self._age))
        if not self._unsent_changes:
            return False
        self._prefect.send_events(self._unsent_changes)
        self._in_flight.sent(self._unsent_changes)
        is_full = len(self._unsent_changes) == BATCH
        self._unsent_changes = []
        return is_full

    def _may_send(self) -> bool:
        """Whether the server keeps up: it has recorded all but the last few state changes."""
        in_flight = self._in_flight
        if in_flight.count < UNCONFIRMED_LIMIT:
            return True
        if not (self._prefect.has_recorded(*in_flight.last) or in_flight.is_overdue):
            return False
        self._in_flight = _InFlight()
        return True

    def _send_logs(self) -> bool:
        """Send the next log entries. Returns whether there may be more."""
        self._unsent_logs = self._unsent_logs or self._next_logs()
        if not self._unsent_logs:
            return False
        self._prefect.send_logs(self._unsent_logs)
        is_full = len(self._unsent_logs) >= BATCH
        self._unsent_logs = []
        return is_full

    def _send_labels(self) -> None:
        while self._unsent_labels:
            labels = dict(self._unsent_labels)
            self._prefect.label(labels)
            for label in labels:
                if self._unsent_labels[label] == labels[label]:
                    del self._unsent_labels[label]

    def _next_logs(self) -> list[JsonObject]:
        messages = [self._messages.popleft() for _ in range(min(BATCH, len(self._messages)))]
        return messages + self._attempt_logs.take()

    def _show_progress(self) -> None:
        """Note the labels that show progress. A job that waits for a long rule causes no request."""
        progress = Progress(done=self.mirror.reported_completed(), total=self.mirror.total())
        if progress != self._shown_progress:
            self._unsent_labels.update(
                {Label.PROGRESS_DONE: progress.done, Label.PROGRESS_TOTAL: progress.total}
            )
            self._shown_progress = progress
        if self._artifact is not None:
            self._artifact.show(progress.done, progress.total)

    def _finish_progress(self) -> bool:
        """Show the last numbers. Returns True, as `_send` does."""
        self._show_progress()
        self._send_labels()
        if self._artifact is not None:
            self._artifact.finish(self._shown_progress.done, self._shown_progress.total)
        return True

    def _resend_lost(self) -> None:
        recorded = self._try(self._prefect.final_task_run_ids)
        if recorded is not None:
            lost = self.mirror.resend(recorded)
            logger.warning("Prefect's server has lost %d task-run states; resending them.", lost)

    def _has_more(self) -> bool:
        unsent = (self._unsent_changes, self._unsent_logs, self._unsent_labels, self._messages)
        return any(unsent) or self.mirror.has_unreported

    def _try(self, call: Callable[[], Result]) -> Result | None:
        try:
            return call()
        except httpx.HTTPError as error:
            logger.warning("Can't send the job's record to Prefect (%s); retrying later.", error)
            return None


@dataclass
class _InFlight:
    """State changes sent since the server had last recorded all of them."""

    count: int = 0
    last: tuple[str, str] = ("", "")
    """Task run and timestamp of the last one."""
    sent_at: float = 0.0

    def sent(self, events: list[JsonObject]) -> None:
        self.count += len(events)
        resource = events[-1]["resource"]
        self.last = (
            resource["prefect.resource.id"].removeprefix("prefect.task-run."),
            resource["prefect.state-timestamp"],
        )
        self.sent_at = time.monotonic()

    @property
    def is_overdue(self) -> bool:
        """Whether the last one is probably lost; `close` will resend it."""
        return time.monotonic() - self.sent_at > RESEND_AFTER_SECONDS


@dataclass
class _Prefect:
    """The requests to Prefect's server that recording needs."""

    client: SyncPrefectClient
    flow_run_id: UUID

    def send_events(self, events: list[JsonObject]) -> None:
        self._post("/events", events)

    def send_logs(self, entries: list[JsonObject]) -> None:
        self._post("/logs/", entries)

    def label(self, labels: dict[Label, str | int]) -> None:
        self.client.update_flow_run_labels(
            self.flow_run_id, {str(key): value for key, value in labels.items()}
        )

    def has_recorded(self, task_run_id: str, timestamp: str) -> bool:
        """Whether the server has recorded a state of the task run that is at least as new as `timestamp`."""
        body = {"task_runs": {"id": {"any_": [task_run_id]}}, "limit": 1}
        found = self._post("/task_runs/filter", body).json()
        return bool(found) and datetime.fromisoformat(found[0]["state"]["timestamp"]) >= (
            datetime.fromisoformat(timestamp)
        )

    def count_final(self) -> int:
        return int(self._post("/task_runs/count", self._filter(_FINAL_STATES)).json())

    def final_task_run_ids(self) -> set[UUID]:
        ids: set[UUID] = set()
        while True:
            body = {**self._filter(_FINAL_STATES), "limit": BATCH, "offset": len(ids)}
            page = self._post("/task_runs/filter", body).json()
            ids.update(UUID(task_run["id"]) for task_run in page)
            if len(page) < BATCH:
                return ids

    def _filter(self, state_types: list[str]) -> JsonObject:
        return {
            "flow_runs": {"id": {"any_": [str(self.flow_run_id)]}},
            "task_runs": {"state": {"type": {"any_": state_types}}},
        }

    def _post(self, path: Any, body: object) -> httpx.Response:
        return self.client.request(
            "POST", path, content=orjson.dumps(body), headers={"Content-Type": "application/json"}
        )
