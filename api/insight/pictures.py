"""The picture of a job's graph, within limits. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.insight.drawing import draw
from api.insight.graphs import GraphOf, graph_of
from api.insight.layout import TooManyPlaces
from api.prefect.rows import RuleJobRow
from api.web.problems import FieldProblem, GraphTooLarge
from api.web.schemas import Job
from api.web.statuses import FINAL_STATUSES

MOST_BOXES = 500
"""In one drawing: with more, nobody finds anything."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG document."""

    svg: bytes
    is_final: bool
    """Whether nothing in it can change any more."""


def drawing_of(job: Job, kind: GraphOf, rows: Sequence[RuleJobRow]) -> Drawing:
    """Raises `GraphTooLarge`."""
    if kind is GraphOf.JOBS and len(rows) > MOST_BOXES:
        raise _too_large(kind, f"has more than {MOST_BOXES} rule jobs")
    graph = graph_of(kind, rows)
    if len(graph.nodes) > MOST_BOXES:
        raise _too_large(kind, f"has {len(graph.nodes)} rules; a drawing has at most {MOST_BOXES}")
    done, total = sum(node.done for node in graph.nodes), sum(node.total for node in graph.nodes)
    state = f"{job.status} · {done:,} of {total:,} rule jobs done" if total else f"{job.status} · no plan yet"
    try:
        svg = draw(graph, kind, job.name, state)
    except TooManyPlaces:
        raise _too_large(kind, "has too many dependencies to draw") from None
    return Drawing(svg, is_final=job.status in FINAL_STATUSES and graph.is_final)


def _too_large(kind: GraphOf, why: str) -> GraphTooLarge:
    resolution = (
        "Use ?of=rules, which counts the rule jobs of each rule."
        if kind is GraphOf.JOBS
        else "Use GET /jobs/{id}/tasks instead. It lists every rule job; with ?rule=…, those of one rule."
    )
    return GraphTooLarge(f"The job {why}.", resolution, [FieldProblem(pointer="?of", message=why)])
