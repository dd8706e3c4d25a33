"""Keeps Prefect up to date with a mirror, from a thread of its own.

- The workflow never waits for Prefect: what Prefect can't take yet stays in the mirror.
- Prefect's server keeps events in memory, at most 10,000 per reader, and drops the rest without
  an error. So about `UNCONFIRMED_LIMIT` state changes are on their way at most: then the recorder
  waits until the server has recorded the last of them.
- When it is closed, it compares once more and sends again what is missing; only then may the
  flow run become final.
- The progress that clients see is the number that the server has recorded.
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
from flows.record.attempt_logs import AttemptLogs
from flows.record.mirror import Ending, Mirror, Progress
from flows.record.task_runs import JsonObject, log_entry
from flows.snakemake_process.events import Message, WorkflowEvent

TICK_SECONDS = 0.25
FIRST_LOOK_SECONDS = 0.04
"""Closing looks soon whether all is recorded, then ever more rarely: small jobs would wait for it."""
BATCH = 200
"""State changes per request; also the most rows that Prefect gives per read."""
UNCONFIRMED_LIMIT = 1_000
PROGRESS_SECONDS = 1.0
PATIENCE_SECONDS = 600.0
"""How long closing waits for a Prefect that records nothing more."""
RESEND_AFTER_SECONDS = 5.0
"""Without a newly recorded rule job for this long, closing looks for lost ones."""
_MESSAGES_KEPT = 20_000
_FINAL_STATES = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]

Result = TypeVar("Result")

logger = logging.getLogger("prefect.flow_runs.recorder")


class RecordError(Exception):
    """Prefect did not record every rule job; the counts of the job would not be true."""


class Recorder:
    """Tells Prefect what a mirror sees. Leave the context only after `close`."""

    def __init__(self, client: SyncPrefectClient, flow_run_id: UUID) -> None:
        self.mirror = Mirror(flow_run_id)
        self._prefect = _Prefect(client, flow_run_id)
        self._attempt_logs = AttemptLogs(flow_run_id)
        self._messages: deque[JsonObject] = deque(maxlen=_MESSAGES_KEPT)
        self._unsent_changes: list[JsonObject] = []
        self._unsent_logs: list[JsonObject] = []
        self._unsent_labels: dict[Label, str | int] = {}
        self._on_the_way = _OnTheWay()
        self._shown_progress = Progress(done=0, total=0)
        self._next_progress = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def observe(self, event: WorkflowEvent) -> None:
        """Take in an event; never blocks on Prefect."""
        self.mirror.observe(event)
        self._attempt_logs.observe(event, self.mirror)
        if isinstance(event, Message):
            self.log(logging.getLevelNamesMapping().get(event.level, logging.INFO), event.text, event.time)

    def log(self, level: int, message: str, timestamp: float | None = None) -> None:
        """Add a line to the log of the job."""
        at = time.time() if timestamp is None else timestamp
        self._messages.append(log_entry(self.mirror.flow_run_id, None, level, message, at))

    def label(self, labels: Mapping[Label, str | int]) -> None:
        """Write down something of the job itself."""
        self._unsent_labels.update(labels)

    def close(self, ending: Ending) -> None:
        """End every rule job, and come back when Prefect has recorded all that there is.

        Raises `RecordError` when nothing more was recorded for `PATIENCE_SECONDS`.
        """
        self._stop.set()
        self._thread.join()
        self.mirror.close(ending, time.time())
        deadline = time.monotonic() + PATIENCE_SECONDS
        last_recorded, last_news = -1, time.monotonic()
        pause = FIRST_LOOK_SECONDS
        while True:
            if time.monotonic() > deadline:
                raise RecordError(f"Prefect has recorded {last_recorded} of {len(self.mirror)} rule jobs.")
            is_flushed = self._try(self._tell)
            recorded = self._try(self._prefect.count_final) if is_flushed else None
            if recorded is None:
                time.sleep(1)
                continue
            if recorded >= len(self.mirror) and not self._has_more() and self._try(self._show_progress):
                break
            if recorded != last_recorded:
                last_recorded, last_news = recorded, time.monotonic()
                deadline = last_news + PATIENCE_SECONDS
            elif time.monotonic() - last_news > RESEND_AFTER_SECONDS:
                self._send_lost_again()
                last_news = time.monotonic()
            time.sleep(pause)
            pause = min(pause * 1.3, TICK_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause = TICK_SECONDS
        while not self._stop.wait(pause):
            # A Prefect that is away must not be hammered, nor end the workflow.
            pause = TICK_SECONDS if self._try(self._tick) else min(pause * 2, 10.0)

    def _tick(self) -> bool:
        self._tell()
        if time.monotonic() >= self._next_progress:
            self._show_progress()
            self._next_progress = time.monotonic() + PROGRESS_SECONDS
        return True

    def _tell(self) -> bool:
        """Send what there is. True, to tell it from a round that `_try` has ended."""
        self._send_changes()
        self._send_logs()
        self._send_labels()
        return True

    def _send_changes(self) -> None:
        while self._unsent_changes or self._may_send():
            self._unsent_changes = self._unsent_changes or self.mirror.due(time.time(), BATCH)
            if not self._unsent_changes:
                return
            self._prefect.send_events(self._unsent_changes)
            self._on_the_way.sent(self._unsent_changes)
            self._unsent_changes = []

    def _may_send(self) -> bool:
        """Whether the server keeps up: it has recorded all but the last few of what it was sent."""
        on_the_way = self._on_the_way
        if on_the_way.count < UNCONFIRMED_LIMIT:
            return True
        if not (self._prefect.has_recorded(*on_the_way.last) or on_the_way.is_overdue):
            return False
        self._on_the_way = _OnTheWay()
        return True

    def _send_logs(self) -> None:
        while True:
            self._unsent_logs = self._unsent_logs or self._next_logs()
            if not self._unsent_logs:
                return
            self._prefect.send_logs(self._unsent_logs)
            self._unsent_logs = []

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

    def _show_progress(self) -> bool:
        """Tell clients how many rule jobs the server has recorded. True, as `_tell`.

        It is asked only while it may not have recorded all that it was told: a job that waits for a
        long rule must cost it nothing.
        """
        told, done = self.mirror.told_completed(), self._shown_progress.done
        if done != told:
            done = self._prefect.count_completed() if told else 0
        progress = Progress(done=done, total=self.mirror.total())
        if progress != self._shown_progress:
            self._prefect.label({Label.PROGRESS_DONE: progress.done, Label.PROGRESS_TOTAL: progress.total})
            self._shown_progress = progress
        return True

    def _send_lost_again(self) -> None:
        recorded = self._try(self._prefect.final_task_run_ids)
        if recorded is not None:
            lost = self.mirror.tell_again(recorded)
            logger.warning("Prefect's server has lost %d task-run states; sending them again.", lost)

    def _has_more(self) -> bool:
        unsent = (self._unsent_changes, self._unsent_logs, self._unsent_labels, self._messages)
        return any(unsent) or self.mirror.has_untold

    def _try(self, call: Callable[[], Result]) -> Result | None:
        try:
            return call()
        except httpx.HTTPError as error:
            logger.warning("Prefect does not take the job's record (%s); it is kept and sent later.", error)
            return None


@dataclass
class _OnTheWay:
    """State changes that were sent since the server was last seen to have recorded all."""

    count: int = 0
    last: tuple[str, str] = ("", "")
    """Task run and time of the last one."""
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
        """Waited for so long that it must be lost; closing finds out."""
        return time.monotonic() - self.sent_at > RESEND_AFTER_SECONDS


@dataclass
class _Prefect:
    """The few calls that a record needs, on the server that the flow runs against."""

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
        """Whether the server knows of a state of the task run that is as new as `timestamp`."""
        body = {"task_runs": {"id": {"any_": [task_run_id]}}, "limit": 1}
        found = self._post("/task_runs/filter", body).json()
        return bool(found) and datetime.fromisoformat(found[0]["state"]["timestamp"]) >= (
            datetime.fromisoformat(timestamp)
        )

    def count_completed(self) -> int:
        return self._count(["COMPLETED"])

    def count_final(self) -> int:
        return self._count(_FINAL_STATES)

    def final_task_run_ids(self) -> set[UUID]:
        ids: set[UUID] = set()
        while True:
            body = {**self._filter(_FINAL_STATES), "limit": BATCH, "offset": len(ids)}
            page = self._post("/task_runs/filter", body).json()
            ids.update(UUID(task_run["id"]) for task_run in page)
            if len(page) < BATCH:
                return ids

    def _count(self, state_types: list[str]) -> int:
        return int(self._post("/task_runs/count", self._filter(state_types)).json())

    def _filter(self, state_types: list[str]) -> JsonObject:
        return {
            "flow_runs": {"id": {"any_": [str(self.flow_run_id)]}},
            "task_runs": {"state": {"type": {"any_": state_types}}},
        }

    def _post(self, path: Any, body: object) -> httpx.Response:
        return self.client.request(
            "POST", path, content=orjson.dumps(body), headers={"Content-Type": "application/json"}
        )
