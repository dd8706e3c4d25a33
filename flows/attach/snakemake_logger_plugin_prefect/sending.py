"""Sends a run to Prefect, from a thread of its own.

- Snakemake never waits for it, except at its end, and then only while Prefect makes progress.
- While Prefect is away, the run keeps one state per rule job and the newest lines of its log, and sends
  them when Prefect is back.
- Prefect's server drops events without an error when it has too many, so only some are in flight; at
  the end, what it has not recorded is sent again.
- The state of the flow run is read every few seconds: somebody may have asked to cancel it.
"""

import math
import threading
import time
from collections.abc import Callable

from .flow_run import FlowRun
from .prefect_api import Rejected, Unavailable
from .run import Ending, Run
from .saying import warn
from .task_runs import JsonObject

TICK_SECONDS = 1.0
LOOK_SECONDS = 5.0
"""How often it asks whether to stop."""
HEARTBEAT_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 15.0
ASK_AGAIN_SECONDS = 0.2
"""How often it asks whether Prefect has recorded something, and at the end, whether it answers."""
BATCH = 200
UNCONFIRMED_LIMIT = 1_000
RESEND_SECONDS = 5.0
_BAD_CONTENT = (400, 413, 422)
LONGEST_END_SECONDS = 60.0
"""How long Snakemake waits at its end for a Prefect that answers, and is slow."""


class Sender:
    """Sends one run. `stop` asks Snakemake to stop."""

    def __init__(self, run: Run, flow_run: FlowRun, stop: Callable[[], None], patience: float) -> None:
        """At the end, it gives up when Prefect has not answered for `patience` seconds."""
        self._run, self._flow_run, self._stop, self._patience = run, flow_run, stop, patience
        self._changes: list[JsonObject] = []
        self._logs: list[JsonObject] = []
        self._in_flight = 0
        self._shown: tuple[int, int] = (0, 0)
        self._next_look = self._next_beat = 0.0
        self._answered_at = time.monotonic()
        self._late_at = math.inf
        self._is_away = self._is_over = False
        self._wake = threading.Event()
        self._ending: Ending | None = None
        self._thread = threading.Thread(target=self._work, name="prefect", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Send what is left; give up when Prefect is away. Says on stderr what is missing then."""
        self._answered_at = time.monotonic()
        self._late_at = self._answered_at + LONGEST_END_SECONDS
        self._ending = self._run.close(time.time())
        self._wake.set()
        while self._thread.is_alive() and time.monotonic() - self._answered_at <= self._patience:
            self._thread.join(0.1)
        if self._thread.is_alive():
            warn(f"it does not answer, so {self._missing()}, and how it ended, did not reach it.")

    def _work(self) -> None:
        pause = 0.0  # so that the flow run is there before its first rule job
        while not self._is_over:
            self._wake.wait(pause)
            try:
                self._send()
                pause = TICK_SECONDS
            except Unavailable as error:
                self._mark_away(error)
                pause = min(max(pause, TICK_SECONDS) * 2, LONGEST_PAUSE_SECONDS)
                if self._ending is not None:  # nothing to wait for any more
                    time.sleep(ASK_AGAIN_SECONDS)
            except Rejected as error:
                self._give_up(str(error))
            except Exception as error:  # noqa: BLE001 - the workflow goes on, whatever it is
                self._give_up(f"{type(error).__name__}: {error}")

    def _give_up(self, reason: str) -> None:
        self._is_over = True
        warn(f"this run is no longer recorded: {reason}.")

    def _send(self) -> None:
        if not self._flow_run.is_made:
            self._flow_run.make(self._run.labels())
        self._mark_answered()
        self._send_all()
        if self._ending is not None:
            self._finish(self._ending)

    def _send_all(self) -> None:
        """States and lines in turn, and whatever else is due between them."""
        has_more = True
        while has_more and not self._is_late:
            has_sent_changes, has_sent_logs = self._send_changes(), self._send_logs()
            has_more = has_sent_changes or has_sent_logs
            self._show_progress()
            self._beat()
            self._look()

    @property
    def _is_late(self) -> bool:
        """Whether Snakemake has waited long enough for all to be sent."""
        return time.monotonic() > self._late_at

    def _send_changes(self) -> bool:
        self._changes = self._changes or self._run.rule_jobs.due(self._flow_run.id, time.time(), BATCH)
        if not self._changes:
            return False
        self._try(self._flow_run.send_events, self._changes)
        self._in_flight += len(self._changes)
        last, self._changes = self._changes[-1], []
        if self._in_flight >= UNCONFIRMED_LIMIT:
            self._confirm(last)
            self._in_flight = 0
        return True

    def _confirm(self, event: JsonObject) -> None:
        """Wait until the server has recorded a state, or has probably lost it."""
        deadline = time.monotonic() + RESEND_SECONDS
        while not self._flow_run.has_recorded(event) and time.monotonic() < deadline:
            self._mark_answered()
            time.sleep(ASK_AGAIN_SECONDS)

    def _send_logs(self) -> bool:
        self._logs = self._logs or self._run.entries.take(self._flow_run.id, BATCH)
        if not self._logs:
            return False
        self._try(self._flow_run.send_logs, self._logs)
        self._logs = []
        return True

    def _try(self, send: Callable[[list[JsonObject]], None], batch: list[JsonObject]) -> None:
        """Send a batch, or drop it: one that Prefect rejects must not hold up what comes after it."""
        try:
            send(batch)
        except Rejected as error:
            if error.status not in _BAD_CONTENT:
                raise
            warn(f"it rejects a part of the record ({error}).")
        self._mark_answered()

    def _show_progress(self) -> None:
        progress = self._run.rule_jobs.progress()
        if progress != self._shown:
            self._flow_run.show_progress(*progress)
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
            self._shown = progress

    def _beat(self) -> None:
        """Give a sign of life: every update of the flow run is one."""
        if time.monotonic() >= self._next_beat:
            self._flow_run.beat()
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS

    def _look(self) -> None:
        """Do what Prefect asks for."""
        if self._ending is not None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        state = self._flow_run.state_type()
        if state in ("CANCELLING", "CANCELLED") and not self._run.is_stopped.is_set():
            self._run.stop()
            warn("the run was cancelled in Prefect; asking Snakemake to stop.")
            self._stop()
        elif state == "CRASHED":
            # The service has taken it for dead, while Prefect or this machine was away.
            self._flow_run.revive()
            self._run.rule_jobs.revive(time.time())

    def _finish(self, ending: Ending) -> None:
        """Report the end, when Prefect has recorded every rule job, or does not get on."""
        recorded, last_change = -1, time.monotonic()
        count = len(self._run.rule_jobs)
        while not self._is_late and (now_recorded := self._flow_run.count_ended()) < count:
            self._mark_answered()
            if now_recorded != recorded:
                recorded, last_change = now_recorded, time.monotonic()
            elif time.monotonic() - last_change > RESEND_SECONDS * 3:
                warn(f"it has recorded {recorded} of {count} rule jobs.")
                break
            elif time.monotonic() - last_change > RESEND_SECONDS:
                self._resend()
            time.sleep(ASK_AGAIN_SECONDS)
        if self._is_late:
            warn(f"it is slow: {self._missing()} did not reach it within {LONGEST_END_SECONDS:g} seconds.")
        self._flow_run.end(ending)
        self._is_over = True

    def _resend(self) -> None:
        self._run.rule_jobs.resend(self._flow_run.id, self._flow_run.ended_task_runs())
        self._send_all()

    def _mark_answered(self) -> None:
        self._answered_at = time.monotonic()
        if self._is_away:
            self._is_away = False
            warn("answers again; sending what it has missed.")

    def _mark_away(self, error: Unavailable) -> None:
        if not self._is_away and self._ending is None:
            warn(f"{error}. The workflow goes on; its record follows when Prefect answers.")
        self._is_away = True

    def _missing(self) -> str:
        if not self._flow_run.is_made:
            return "this run"
        states = self._run.rule_jobs.unsent() + len(self._changes)
        lines = len(self._run.entries) + len(self._logs)
        return f"up to {states} states of rule jobs and {lines} lines of the log"
