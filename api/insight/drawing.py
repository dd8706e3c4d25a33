"""Draws a graph as an SVG, which shows each state by a sign as well as a colour. Pure."""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from xml.etree import ElementTree

from api.insight.graphs import Graph, GraphOf, Node
from api.insight.layout import Box, Edge, Layout, Point, Size, arrange_fitting
from api.insight.svg import HEAD, MARGIN, add, cells, document, duration, encoded, shortened
from api.web.statuses import RuleJobStatus

_STATES = (
    RuleJobStatus.COMPLETED,
    RuleJobStatus.SKIPPED,
    RuleJobStatus.RUNNING,
    RuleJobStatus.PENDING,
    RuleJobStatus.FAILED,
    RuleJobStatus.CANCELLED,
)

_SIGNS: Mapping[RuleJobStatus, str] = {
    RuleJobStatus.COMPLETED: "M-3,0.2 L-0.9,2.4 L3.1,-2.2",
    RuleJobStatus.SKIPPED: "M-2.8,-2.4 L-0.4,0 L-2.8,2.4 M0.6,-2.4 L3,0 L0.6,2.4",
    RuleJobStatus.RUNNING: "M-1.6,-2.8 L3,0 L-1.6,2.8 Z",
    RuleJobStatus.PENDING: "",
    RuleJobStatus.FAILED: "M-2.3,-2.3 L2.3,2.3 M2.3,-2.3 L-2.3,2.3",
    RuleJobStatus.CANCELLED: "M-2.9,0 L2.9,0",
}
"""Paths, drawn on a disc with a radius of 6.5."""

_FOOT = 40.0
_RULE_HEIGHT = 56.0
_JOB_HEIGHT = 32.0
_SMALLEST_RULE = 150.0
_LETTER = 7.85
"""Width of a letter of the monospaced `name`, with a small margin."""
_NOTE_LETTER = 6.3
_LONGEST_NAME = 34
_LONGEST_NOTE = 500
_WIDE = 1100.0
"""The width that a documentation page or a browser window shows without scaling."""
_NARROWEST = 620.0
"""The width of the legend."""


def draw(graph: Graph, kind: GraphOf, heading: str, subheading: str) -> bytes:
    """The document. Raises `api.insight.layout.TooManyPlaces`."""
    layout = arrange_fitting([_size(node, kind) for node in graph.nodes], graph.edges, _WIDE)
    width = max(layout.width + 2 * MARGIN, _NARROWEST)
    height = layout.height + HEAD + _FOOT + (MARGIN if graph.nodes else 0.0)
    svg = document(width, height, heading, subheading)
    _add_arrowhead(svg)
    drawing = add(svg, "g", transform=f"translate({(width - layout.width) / 2:.1f} {HEAD + 12:.1f})")
    _add_edges(drawing, graph, layout)
    for node, box in zip(graph.nodes, layout.boxes, strict=True):
        (_add_rule if kind is GraphOf.RULES else _add_job)(drawing, node, box)
    _add_legend(svg, graph.counts, height - 18)
    return encoded(svg)


def _size(node: Node, kind: GraphOf) -> Size:
    name = cells(shortened(node.name, _LONGEST_NAME)) * _LETTER
    if kind is GraphOf.JOBS:
        return Size(
            name + 92, _JOB_HEIGHT
        )  # with room for the duration, so that boxes do not move when it appears
    return Size(max(_SMALLEST_RULE, name + 46, 22 + _NOTE_LETTER * len(_short_count(node))), _RULE_HEIGHT)


def _add_edges(parent: ElementTree.Element, graph: Graph, layout: Layout) -> None:
    for edge, route in layout.routes.items():
        path = add(
            parent,
            "path",
            _class="edge",
            d=_path(edge, route, is_downwards=layout.is_downwards),
            marker_end="url(#tip)",
        )
        before, after = (graph.nodes[number].name for number in edge)
        add(path, "title", text=f"{before} → {after}")


def _path(edge: Edge, route: tuple[Point, ...], *, is_downwards: bool) -> str:
    """Straight segments joined by curves, computed as if to the right; the arrowhead is the last part."""
    if is_downwards:
        route = tuple((y, x) for x, y in route)
    if edge[0] == edge[1]:
        (start, level), (end, _) = route
        steps = [(start, level), (start, level - 15), (end, level - 15), (end, level - 5)]
        return f"M{_at(steps[0], is_downwards)}C{' '.join(_at(step, is_downwards) for step in steps[1:])}"
    (x_before, _), (x_end, y_end) = route[-2:]
    route = (*route[:-1], (x_end - (5 if x_before < x_end else -5), y_end))
    drawn = [f"M{_at(route[0], is_downwards)}"]
    for (x, y), (next_x, next_y) in pairwise(route):
        if abs(next_y - y) < 0.05:
            drawn.append(f"L{_at((next_x, next_y), is_downwards)}")
        else:
            bend = (x + next_x) / 2
            steps = [(bend, y), (bend, next_y), (next_x, next_y)]
            drawn.append(f"C{' '.join(_at(step, is_downwards) for step in steps)}")
    return "".join(drawn)


def _at(point: Point, is_downwards: bool) -> str:
    x, y = point[::-1] if is_downwards else point
    return f"{x:.1f},{y:.1f}"


def _add_rule(parent: ElementTree.Element, node: Node, box: Box) -> None:
    group = _add_card(parent, node, box)
    _add_sign(group, node.status, box.x + 17, box.y + 18)
    add(group, "text", _class="name", x=box.x + 31, y=box.y + 22.5, text=shortened(node.name, _LONGEST_NAME))
    add(group, "text", _class="note count", x=box.x + 11, y=box.y + 40, text=_short_count(node))
    if node.seconds is not None and node.status in (RuleJobStatus.COMPLETED, RuleJobStatus.SKIPPED):
        seconds = f"up to {duration(node.seconds)}" if node.total > 1 else duration(node.seconds)
        add(
            group,
            "text",
            _class="note count end",
            x=box.x + box.width - 11,
            y=box.y + 40,
            text=seconds,
        )
    _add_bar(group, node, box)


def _add_job(parent: ElementTree.Element, node: Node, box: Box) -> None:
    group = _add_card(parent, node, box)
    _add_sign(group, node.status, box.x + 16, box.y + box.height / 2)
    add(group, "text", _class="name", x=box.x + 30, y=box.y + 20.5, text=shortened(node.name, _LONGEST_NAME))
    if node.seconds is not None:
        add(
            group,
            "text",
            _class="note count end",
            x=box.x + box.width - 10,
            y=box.y + 20.5,
            text=duration(node.seconds),
        )


def _add_card(parent: ElementTree.Element, node: Node, box: Box) -> ElementTree.Element:
    """The box with its tooltip."""
    group = add(parent, "g")
    counts = ", ".join(f"{node.counts[state]} {state}" for state in _STATES if node.counts.get(state))
    add(group, "title", text="\n".join([node.name, counts, *node.notes])[:_LONGEST_NOTE])
    add(
        group,
        "rect",
        _class=f"card is-{node.status}",
        x=box.x,
        y=box.y,
        width=box.width,
        height=box.height,
        rx=8,
    )
    return group


def _add_bar(parent: ElementTree.Element, node: Node, box: Box) -> None:
    """The progress of a rule: its rule jobs by state, side by side."""
    left, length, top = box.x + 11, box.width - 22, box.y + box.height - 9
    add(parent, "rect", _class="rail", x=left, y=top, width=length, height=3, rx=1.5)
    visible = [state for state in _STATES if state is not RuleJobStatus.PENDING and node.counts.get(state)]
    shares = [length * node.counts[state] / node.total for state in visible]
    for state, share, start in zip(visible, shares, accumulate([0.0, *shares]), strict=False):
        add(parent, "rect", _class=state.value, x=left + start, y=top, width=share, height=3, rx=1.5)


def _add_legend(svg: ElementTree.Element, counts: Mapping[RuleJobStatus, int], y: float) -> None:
    x = MARGIN + 7
    for state in _STATES:
        text = f"{counts.get(state, 0):,} {state}"
        _add_sign(svg, state, x, y - 4)
        add(svg, "text", _class="note count", x=x + 12, y=y, text=text)
        x += 34 + _NOTE_LETTER * len(text)


def _add_sign(parent: ElementTree.Element, state: RuleJobStatus, x: float, y: float) -> None:
    radius = 5.7 if state is RuleJobStatus.PENDING else 6.5
    add(parent, "circle", _class=state.value, cx=x, cy=y, r=radius)
    if _SIGNS[state]:
        add(parent, "path", _class="sign", d=_SIGNS[state], transform=f"translate({x:.1f} {y:.1f})")


def _add_arrowhead(svg: ElementTree.Element) -> None:
    marker = add(
        add(svg, "defs"),
        "marker",
        id="tip",
        viewBox="0 0 8 8",
        refX=2,
        refY=4,
        markerWidth=8,
        markerHeight=8,
        markerUnits="userSpaceOnUse",
        orient="auto",
    )
    add(marker, "path", _class="tip", d="M0,0.6 L7.4,4 L0,7.4 L1.8,4 Z")


def _short_count(node: Node) -> str:
    """Done and total, then the states that need attention."""
    notable = (RuleJobStatus.FAILED, RuleJobStatus.RUNNING, RuleJobStatus.CANCELLED)
    others = [f"{node.counts[state]:,} {state}" for state in notable if node.counts.get(state)]
    return " · ".join([f"{node.done:,} of {node.total:,}", *others])
