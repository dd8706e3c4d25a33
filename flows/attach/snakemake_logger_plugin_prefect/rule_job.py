"""A rule job: what is planned, its newest attempt and its state, and all of that in Prefect's words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from .task_runs import JsonObject, State, isoformat, state_change_event, task_inputs, task_run_id_of

RECORD = "snakemake.rule-job"
"""The label of a task run that has the rule job's record (`flows/contract/spec.py`, `RuleJobRecord`)."""

_MOMENT = 2e-6
"""Less than two microseconds may round to the same one."""
_EDGES = 10_000
"""Prefect drops events over 1.5 MB without an error."""
_LISTED_PATHS = 200
_LONGEST_TEXT = 4_000
_OPEN = ("PENDING", "RUNNING", "SCHEDULED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A rule job as the plan has it."""

    job_id: int
    rule: str
    wildcards: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[int, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    reason: str = ""
    is_done: bool = False
    """Its outputs were up to date before this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A rule job has begun here, or was submitted to a cluster."""

    time: float
    number: int = 1
    threads: int = 1
    resources: Mapping[str, int | float | str] = field(default_factory=dict)
    reason: str = ""
    shell: str | None = None
    log_files: tuple[str, ...] = ()
    """Absolute paths."""


@dataclass(slots=True)
class RuleJob:
    """A rule job and its newest state."""

    planned: Planned
    planned_at: float
    state: State
    attempt: Attempt | None = None
    external_id: str | None = None
    """The cluster's id of the newest attempt."""
    is_dropped: bool = False
    """Whether a checkpoint has replaced it."""

    @property
    def name(self) -> str:
        """As Prefect shows it: `rule[wildcard=value,…]`."""
        wildcards = ",".join(f"{name}={value}" for name, value in self.planned.wildcards.items())
        return f"{self.planned.rule}[{wildcards}]" if wildcards else self.planned.rule

    @property
    def is_open(self) -> bool:
        return self.state.type in _OPEN

    def enter(self, kind: str, name: str, time: float, message: str = "") -> None:
        """Enter a state, always later than the last one: Prefect ignores older ones."""
        self.state = State(kind, name, max(time, self.state.time + _MOMENT), shortened(message) or "")

    def repeat(self, time: float = 0.0) -> None:
        """Make the state a new one: the server skips an event that it has seen, even if it has lost it."""
        self.enter(self.state.type, self.state.name, time, self.state.message)

    def event(self, flow_run_id: UUID) -> JsonObject:
        """Its newest state, for `POST /events`."""
        task_run_id = task_run_id_of(flow_run_id, self.planned.job_id)
        return state_change_event(flow_run_id, task_run_id, self._columns(flow_run_id), self.state)

    def _columns(self, flow_run_id: UUID) -> JsonObject:
        """The rule job as columns of Prefect's `TaskRun`."""
        upstream = (task_run_id_of(flow_run_id, other) for other in self.planned.depends_on[:_EDGES])
        columns: JsonObject = {
            "name": self.name,
            "task_key": f"rule.{self.planned.rule}",
            "dynamic_key": str(self.planned.job_id),
            "run_count": self.attempt.number if self.attempt else 0,
            "tags": [self.planned.rule],
            "task_inputs": task_inputs(upstream),
            # Prefect's graph shows a rule job that has not started only with an expected start.
            "expected_start_time": isoformat(self.planned_at),
            "labels": {RECORD: self._record()},
        }
        began = self.attempt.time if self.attempt else self.state.time
        if self.attempt is not None or not self.is_open:
            columns["start_time"] = isoformat(began)
        if not self.is_open:
            columns["end_time"] = isoformat(self.state.time)
            columns["total_run_time"] = max(0.0, self.state.time - began)
        return columns

    def _record(self) -> str:
        planned, attempt = self.planned, self.attempt
        record: JsonObject = {
            "rule": planned.rule,
            "wildcards": dict(planned.wildcards),
            "threads": attempt.threads if attempt else 1,
            "resources": dict(attempt.resources) if attempt else {},
            "reason": shortened(attempt.reason if attempt else planned.reason),
            "shell": shortened(attempt.shell if attempt else None),
            "inputs": planned.inputs[:_LISTED_PATHS],
            "outputs": planned.outputs[:_LISTED_PATHS],
            "external_id": self.external_id,
            "error": self.state.message if self.state.type in ("FAILED", "CRASHED") else None,
        }
        return json.dumps({name: value for name, value in record.items() if value}, ensure_ascii=False)


def shortened(text: str | None) -> str | None:
    """Its beginning: the command of a join can name thousands of files."""
    if not text or len(text) <= _LONGEST_TEXT:
        return text or None
    return f"{text[:_LONGEST_TEXT]} …"
