"""The events of an execution, as frozen types and as versioned JSON lines.

The engine's process writes one line per event, and the flow reads them. `events.jsonl` of a job has
the same lines, for the operator. Times are seconds since the epoch, as from `time.time()`. This module
only imports the standard library, because it also runs inside Snakemake's own process.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar

PROTOCOL_VERSION = 1

ATTEMPT_LOGS = ".snakemake/attempts"
"""The directory of what attempts write, relative to the directory that Snakemake is started in."""

LEDGER = ".snakemake/submitted.jsonl"
"""The ids of all jobs that this execution has submitted to a cluster, as JSON lines; relative as above."""


class Outcome(StrEnum):
    """How one attempt at a rule job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


class ProtocolError(ValueError):
    """A line is not an event of this protocol version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleJobPlanned:
    """A rule job is part of the workflow; sent again when a checkpoint changes it."""

    type: ClassVar[str] = "rule_job_planned"
    time: float
    job_id: int
    rule: str
    wildcards: Mapping[str, str]
    depends_on: tuple[int, ...] = ()
    threads: int = 1
    resources: Mapping[str, int | float | str]
    reason: str = ""
    shell: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()
    """Those of `outputs` that the workflow marks with `report()`."""
    is_done: bool = False
    """Its outputs were up to date before this execution, so it will not run."""
    undeployed: tuple[str, ...] = ()
    """Methods of software that its rule declares and this execution does not deploy (`conda`, …)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleJobDropped:
    """A planned rule job is no longer part of the workflow (a checkpoint replaced it)."""

    type: ClassVar[str] = "rule_job_dropped"
    time: float
    job_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCompleted:
    """The plan as known so far was sent completely; sent again after a checkpoint."""

    type: ClassVar[str] = "plan_completed"
    time: float
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSubmitted:
    """A rule job was submitted to a cluster; sent again when the reason why it waits has changed."""

    type: ClassVar[str] = "attempt_submitted"
    time: float
    job_id: int
    attempt: int
    executor: str
    external_id: str | None
    """The cluster's id of the job; members of a group have the same one."""
    queue_reason: str = ""
    """Why it waits, in the cluster's words; empty if that is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """A rule job began to run."""

    type: ClassVar[str] = "attempt_started"
    time: float
    job_id: int
    attempt: int
    """1 for the first."""
    threads: int = 1
    resources: Mapping[str, int | float | str]
    reason: str = ""
    shell: str | None = None
    log_path: str | None = None
    """File for the attempt's stdout and stderr, written while it runs."""
    host: str | None = None
    """The node of the cluster; None on this machine."""
    external_id: str | None = None
    """The cluster's id of the job; None on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """A rule job ended, and Snakemake has checked its outputs."""

    type: ClassVar[str] = "attempt_finished"
    time: float
    job_id: int
    attempt: int
    outcome: Outcome
    started_at: float
    finished_at: float
    will_retry: bool = False
    exit_code: int | None = None
    exception: str = ""
    """Name of the class of the exception that was the failure."""
    message: str = ""
    """Snakemake's message about a failure."""
    cpu_seconds: float | None = None
    """Of its commands and the children they waited for; None without a command."""
    peak_memory_bytes: int | None = None
    """Of its largest process; None without a value (see `flows.snakemake_process.usage`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A line of the engine's own log."""

    type: ClassVar[str] = "message"
    time: float
    level: str
    """Name of a level of Python's `logging`."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChanged:
    """The engine has started or ended a long step before rule jobs can run."""

    type: ClassVar[str] = "phase_changed"
    time: float
    phase: str
    """Description of the step; empty when it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRaised:
    """The engine reports an error that ends the workflow or one of its rule jobs."""

    type: ClassVar[str] = "error_raised"
    time: float
    exception: str
    """Name of the exception's class. It classifies the error, because Snakemake always exits with 1."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineExited:
    """The engine's process and all its descendants have ended. Always the last event."""

    type: ClassVar[str] = "engine_exited"
    time: float
    exit_code: int
    """Negative: the signal that killed it."""


WorkflowEvent = (
    RuleJobPlanned
    | RuleJobDropped
    | PlanCompleted
    | AttemptSubmitted
    | AttemptStarted
    | AttemptFinished
    | Message
    | PhaseChanged
    | ErrorRaised
    | EngineExited
)

_TYPES: dict[str, type[WorkflowEvent]] = {
    event_type.type: event_type
    for event_type in (
        RuleJobPlanned,
        RuleJobDropped,
        PlanCompleted,
        AttemptSubmitted,
        AttemptStarted,
        AttemptFinished,
        Message,
        PhaseChanged,
        ErrorRaised,
        EngineExited,
    )
}


def encode(event: WorkflowEvent) -> bytes:
    """The event as one line, with newline."""
    record = {"v": PROTOCOL_VERSION, "type": event.type, **asdict(event)}
    return (
        json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")
        + b"\n"
    )


def decode(line: bytes | str) -> WorkflowEvent:
    """The event of one line.

    Ignores unknown fields, so that it can read lines of a newer engine.

    Raises `ProtocolError` for a line that is not JSON, has another version or an unknown type, or lacks
    a field.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {line[:200]!r}") from error
    if not isinstance(record, dict) or record.get("v") != PROTOCOL_VERSION:
        raise ProtocolError(f"not of protocol version {PROTOCOL_VERSION}: {line[:200]!r}")
    event_type = _TYPES.get(str(record.get("type")))
    if event_type is None:
        raise ProtocolError(f"unknown event type {record.get('type')!r}")
    names = {field.name for field in fields(event_type)}
    try:
        return event_type(**{name: _value(name, value) for name, value in record.items() if name in names})
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"bad {event_type.type}: {error}") from error


def _value(name: str, value: Any) -> Any:
    if name == "outcome":
        return Outcome(value)
    return tuple(value) if isinstance(value, list) else value
