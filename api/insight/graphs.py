"""The dependency graph of a job, with the progress of each part. Pure.

Its nodes are rule jobs, or rules with counts of their rule jobs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from api.prefect.rows import RuleJobRow
from api.web.statuses import RuleJobStatus, rule_job_status

_BY_IMPORTANCE = (
    RuleJobStatus.FAILED,
    RuleJobStatus.RUNNING,
    RuleJobStatus.CANCELLED,
    RuleJobStatus.PENDING,
    RuleJobStatus.COMPLETED,
    RuleJobStatus.SKIPPED,
)
_DONE = (RuleJobStatus.COMPLETED, RuleJobStatus.SKIPPED)
_OPEN = (RuleJobStatus.PENDING, RuleJobStatus.RUNNING)


class GraphOf(StrEnum):
    """What the boxes of a graph stand for."""

    RULES = "rules"
    """One box for each rule, with counts of its rule jobs."""
    JOBS = "jobs"
    """One box for each rule job."""


@dataclass(frozen=True, slots=True)
class Node:
    """A rule job, or a rule with all its rule jobs."""

    name: str
    counts: Mapping[RuleJobStatus, int]
    notes: tuple[str, ...] = ()
    """More about it, one line each."""
    seconds: float | None = None
    """How long it took, or the longest of its rule jobs; None while none has ended."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        return sum(self.counts.get(status, 0) for status in _DONE)

    @property
    def status(self) -> RuleJobStatus:
        """The most important status among its rule jobs."""
        return next(status for status in _BY_IMPORTANCE if self.counts.get(status))


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes sorted by name, and edges as (node, dependent node), by index."""

    nodes: tuple[Node, ...]
    edges: frozenset[tuple[int, int]]

    @property
    def counts(self) -> Counter[RuleJobStatus]:
        return sum((Counter(node.counts) for node in self.nodes), Counter())

    @property
    def is_final(self) -> bool:
        return not any(self.counts[status] for status in _OPEN)


def graph_of(kind: GraphOf, rows: Iterable[RuleJobRow]) -> Graph:
    """Edges to rule jobs that are not among `rows` are left out."""
    by_id = {row.id: row for row in rows}
    key: Callable[[RuleJobRow], str] = _rule if kind is GraphOf.RULES else lambda row: f"{row.name}\0{row.id}"
    members: dict[str, list[RuleJobRow]] = {}
    for row in sorted(by_id.values(), key=key):
        members.setdefault(key(row), []).append(row)
    index = {name: number for number, name in enumerate(members)}
    place: dict[UUID, int] = {row.id: index[key(row)] for row in by_id.values()}
    edges = frozenset(
        (place[before], place[row.id]) for row in by_id.values() for before in row.upstream if before in place
    )
    node = _node_of_rule if kind is GraphOf.RULES else _node_of_job
    return Graph(tuple(node(rows) for rows in members.values()), edges)


def _node_of_rule(rows: Sequence[RuleJobRow]) -> Node:
    failures = [f"{row.name}: {row.message}" for row in rows if _status(row) is RuleJobStatus.FAILED]
    notes = (*failures[:3], *([f"and {len(failures) - 3} more failed"] if len(failures) > 3 else []))
    seconds = [row.seconds for row in rows if row.seconds is not None]
    return Node(_rule(rows[0]), Counter(map(_status, rows)), notes, max(seconds, default=None))


def _node_of_job(rows: Sequence[RuleJobRow]) -> Node:
    (row,) = rows
    attempts = (f"{row.run_count} attempts",) if row.run_count > 1 else ()
    message = (row.message,) if row.message else ()
    return Node(row.name, {_status(row): 1}, (*attempts, *message), row.seconds)


def _status(row: RuleJobRow) -> RuleJobStatus:
    return rule_job_status(row.state_type, row.state_name)


def _rule(row: RuleJobRow) -> str:
    return row.task_key.removeprefix("rule.") if row.task_key.startswith("rule.") else row.name
