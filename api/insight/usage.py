"""What the rule jobs of a job took, what they had asked for, and what would have been enough. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import quantiles
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.prefect.rows import RuleJobRow
from api.prefect.translation import rule_job_from
from api.web.schemas import Job, RuleJob
from api.web.statuses import RuleJobStatus

_MEGABYTE = 1_000_000  # Snakemake's `mem_mb` is in units of 1,000,000 bytes
_MEMORY_STEP_MB = 50
_IDLE_BELOW = 0.6
"""Below this efficiency, fewer threads are suggested."""

_USAGE_EXAMPLE: dict[str, Any] = {
    "seconds": 72.0,
    "waiting_seconds": 2.0,
    "cpu_seconds": 101.3,
    "cores": 2,
    "cpu_efficiency": 0.7,
    "cost_usd": 0.0018,
    "rules": [
        {
            "rule": "call",
            "jobs": 2,
            "attempts": 3,
            "threads": 4,
            "seconds": {"median": 31.0, "p90": 38.2, "largest": 40.1},
            "cpu_efficiency": {"median": 0.31, "p90": 0.35, "largest": 0.36},
            "peak_memory_bytes": {"median": 4.1e8, "p90": 4.4e8, "largest": 4.5e8},
            "requested_mem_mb": 4000,
            "suggested": {"threads": 2, "mem_mb": 550, "runtime": 1},
        }
    ],
    "critical_path": [{"name": "call[sample=B]", "seconds": 40.1, "waited_seconds": 0.2}],
}


class Spread(BaseModel):
    """The values of the rule jobs of a rule."""

    median: float
    p90: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """None without values."""
        if not values:
            return None
        if len(values) == 1:
            return cls(median=values[0], p90=values[0], largest=values[0])
        deciles = quantiles(values, n=10, method="inclusive")
        return cls(median=deciles[4], p90=deciles[8], largest=max(values))


class Suggestion(BaseModel):
    """What would have been enough for every rule job of the rule, with a margin."""

    threads: int | None = Field(description="Fewer threads, where most of them were idle.")
    mem_mb: int | None = Field(description="Memory of the largest process, in MB.")
    runtime: int = Field(description="Minutes.")


class RuleUsage(BaseModel):
    """What the rule jobs of a rule took that have run."""

    rule: str
    jobs: int
    attempts: int = Field(description="How many times they were started.")
    threads: int = Field(description="The most threads of one.")
    seconds: Spread = Field(description="The last attempt of each.")
    cpu_efficiency: Spread | None = Field(description="CPU time divided by time and threads; 1 is all busy.")
    peak_memory_bytes: Spread | None = Field(description="The largest process of each.")
    requested_mem_mb: float | None = Field(description="The most `mem_mb` that one had asked for.")
    suggested: Suggestion


class Step(BaseModel):
    """A rule job that others had to wait for."""

    name: str
    seconds: float
    waited_seconds: float = Field(description="Between the end of the one before and its start.")


class Usage(BaseModel):
    """What a job took."""

    model_config = ConfigDict(json_schema_extra={"examples": [_USAGE_EXAMPLE]})

    seconds: float | None = Field(description="From its start to its end; null while it runs.")
    waiting_seconds: float | None = Field(description="Before its start.")
    cpu_seconds: float = Field(description="Of all rule jobs.")
    cores: int
    cpu_efficiency: float | None = Field(description="CPU time divided by time and cores.")
    cost_usd: float | None = Field(
        default=None,
        description="The list price of the job's own task on Fargate for this time, without tax, discounts "
        "and rule jobs elsewhere; null where the operator has set no prices.",
    )
    rules: list[RuleUsage] = Field(description="The longest in total first.")
    critical_path: list[Step] = Field(
        description="From the rule job that ended last, back over those that it waited for."
    )


class WorkflowUsage(BaseModel):
    """What the newest completed jobs of a registered workflow took together."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"jobs": 12, "rules": _USAGE_EXAMPLE["rules"]}]}
    )

    jobs: int
    rules: list[RuleUsage]


def usage_of(job: Job, cores: int, rows: Sequence[RuleJobRow], margin: float) -> Usage:
    """`margin` is the fraction that is suggested beyond what was taken."""
    rule_jobs = [rule_job_from(row) for row in rows]
    seconds = _between(job.started_at, job.finished_at)
    cpu_seconds = sum(each.cpu_seconds or 0.0 for each in rule_jobs)
    return Usage(
        seconds=seconds,
        waiting_seconds=_between(job.created_at, job.started_at),
        cpu_seconds=cpu_seconds,
        cores=cores,
        cpu_efficiency=cpu_seconds / (seconds * cores) if seconds else None,
        rules=rules_of(rule_jobs, margin),
        critical_path=_critical_path(rows),
    )


def rules_of(rule_jobs: Iterable[RuleJob], margin: float) -> list[RuleUsage]:
    """By rule, the longest in total first."""
    by_rule: dict[str, list[RuleJob]] = defaultdict(list)
    for each in rule_jobs:
        if each.status in (RuleJobStatus.COMPLETED, RuleJobStatus.FAILED) and _seconds(each) is not None:
            by_rule[each.rule].append(each)
    usages = [_rule(rule, members, margin) for rule, members in by_rule.items()]
    return sorted(usages, key=lambda usage: usage.seconds.median * usage.jobs, reverse=True)


def _rule(rule: str, members: Sequence[RuleJob], margin: float) -> RuleUsage:
    seconds = [_seconds(each) or 0.0 for each in members]
    busy = [
        each.cpu_seconds / (took * max(1, each.threads))
        for each, took in zip(members, seconds, strict=True)
        if each.cpu_seconds is not None and took > 0
    ]
    memory = [float(each.peak_memory_bytes) for each in members if each.peak_memory_bytes is not None]
    asked = [value for each in members if isinstance(value := each.resources.get("mem_mb"), int | float)]
    threads = max(each.threads for each in members)
    return RuleUsage(
        rule=rule,
        jobs=len(members),
        attempts=sum(each.attempts for each in members),
        threads=threads,
        seconds=Spread.of(seconds) or Spread(median=0, p90=0, largest=0),
        cpu_efficiency=Spread.of(busy),
        peak_memory_bytes=Spread.of(memory),
        requested_mem_mb=max(asked, default=None),
        suggested=Suggestion(
            threads=_threads(threads, max(busy, default=1.0)),
            mem_mb=_memory_mb(max(memory), margin) if memory else None,
            runtime=max(1, math.ceil(max(seconds) * (1 + margin) / 60)),
        ),
    )


def _threads(threads: int, busiest: float) -> int | None:
    return max(1, math.ceil(threads * busiest)) if threads > 1 and busiest < _IDLE_BELOW else None


def _memory_mb(most: float, margin: float) -> int:
    return math.ceil(most * (1 + margin) / _MEGABYTE / _MEMORY_STEP_MB) * _MEMORY_STEP_MB


def _critical_path(rows: Sequence[RuleJobRow]) -> list[Step]:
    ran = {row.id: row for row in rows if row.seconds is not None}
    path: list[RuleJobRow] = []
    candidates: Iterable[UUID] = ran
    seen: set[UUID] = set()
    while last := max(
        (ran[each] for each in candidates if each in ran and each not in seen),
        key=lambda row: row.end_time.timestamp() if row.end_time else 0.0,
        default=None,
    ):
        seen.add(last.id)
        path.append(last)
        candidates = last.upstream
    path.reverse()
    waited = [0.0, *(_between(before.end_time, row.start_time) or 0.0 for before, row in pairwise(path))]
    return [
        Step(name=row.name, seconds=row.seconds or 0.0, waited_seconds=max(0.0, seconds))
        for row, seconds in zip(path, waited, strict=False)
    ]


def _seconds(rule_job: RuleJob) -> float | None:
    return _between(rule_job.started_at, rule_job.finished_at)


def _between(start: Any, end: Any) -> float | None:
    seconds: float | None = None if start is None or end is None else (end - start).total_seconds()
    return seconds
