"""Workflow events as an engine tells them, and a mirror that they are told to. Times count from `START`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from flows.record.mirror import Ending, Mirror
from flows.record.task_runs import JsonObject
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    AttemptSubmitted,
    Outcome,
    PlanCompleted,
    RuleJobPlanned,
    WorkflowEvent,
)

START = 1_760_000_000.0


@dataclass(frozen=True)
class Ask:
    """Ask the mirror what is due, so long after `START`."""

    at: float


STOP = "stop"
Step = WorkflowEvent | Ask | Ending | str


def planned(
    job_id: int = 1,
    rule: str = "map",
    *,
    at: float = 0,
    wildcards: Mapping[str, str] | None = None,
    depends_on: tuple[int, ...] = (),
    reason: str = "",
    inputs: tuple[str, ...] = (),
    outputs: tuple[str, ...] = (),
    logs: tuple[str, ...] = (),
    benchmarks: tuple[str, ...] = (),
    is_done: bool = False,
) -> RuleJobPlanned:
    return RuleJobPlanned(
        time=START + at,
        job_id=job_id,
        rule=rule,
        wildcards=wildcards or {},
        depends_on=depends_on,
        resources={},
        reason=reason,
        inputs=inputs,
        outputs=outputs,
        logs=logs,
        benchmarks=benchmarks,
        is_done=is_done,
    )


def plan_completed(total: int = 1, *, at: float = 0) -> PlanCompleted:
    return PlanCompleted(time=START + at, total=total)


def submitted(
    job_id: int = 1, *, attempt: int = 1, at: float = 1, external_id: str = "42", queue_reason: str = ""
) -> AttemptSubmitted:
    return AttemptSubmitted(
        time=START + at,
        job_id=job_id,
        attempt=attempt,
        executor="slurm",
        external_id=external_id,
        queue_reason=queue_reason,
    )


def started(
    job_id: int = 1,
    *,
    attempt: int = 1,
    at: float = 1,
    reason: str = "",
    shell: str | None = None,
    resources: Mapping[str, int | float | str] | None = None,
    threads: int = 1,
    log_path: str | None = None,
) -> AttemptStarted:
    return AttemptStarted(
        time=START + at,
        job_id=job_id,
        attempt=attempt,
        threads=threads,
        resources=resources or {},
        reason=reason,
        shell=shell,
        log_path=log_path,
    )


def succeeded(
    job_id: int = 1, *, attempt: int = 1, began: float = 1, at: float = 2, told: float | None = None
) -> AttemptFinished:
    return AttemptFinished(
        time=START + (at if told is None else told),
        job_id=job_id,
        attempt=attempt,
        outcome=Outcome.SUCCEEDED,
        started_at=START + began,
        finished_at=START + at,
    )


def failed(
    job_id: int = 1,
    *,
    attempt: int = 1,
    began: float = 1,
    at: float = 2,
    will_retry: bool = False,
    exit_code: int | None = 1,
    message: str = "",
) -> AttemptFinished:
    return AttemptFinished(
        time=START + at,
        job_id=job_id,
        attempt=attempt,
        outcome=Outcome.FAILED,
        started_at=START + began,
        finished_at=START + at,
        will_retry=will_retry,
        exit_code=exit_code,
        message=message,
    )


def play(mirror: Mirror, *steps: Step) -> list[JsonObject]:
    """Everything that Prefect is told."""
    told: list[JsonObject] = []
    for step in steps:
        match step:
            case Ask():
                told += mirror.due(START + step.at, limit=100_000)
            case Ending():
                mirror.close(step, START + 9)
            case str():
                mirror.stop()
            case _:
                mirror.observe(step)
    return told


def a_mirror() -> Mirror:
    return Mirror(uuid4())


def state_of(event: JsonObject) -> tuple[str, str]:
    state = event["payload"]["validated_state"]
    return state["type"], state["name"]


def states_of(events: Sequence[JsonObject]) -> list[str]:
    """Names of the states, with the type where the name does not say it."""
    names = []
    for state_type, name in map(state_of, events):
        says_type = state_type in (name.upper(), "RUNNING")
        names.append(name if says_type else f"{name} ({state_type})")
    return names


def task_run_of(event: JsonObject) -> dict[str, Any]:
    columns: dict[str, Any] = event["payload"]["task_run"]
    return columns
