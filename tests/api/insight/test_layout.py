"""A drawn graph can be read: boxes apart, every edge drawn, no line through a box of others."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.insight.layout import Box, Edge, Layout, Point, Size, TooManyPlaces, arrange, arrange_fitting

MOST = 12
SIZES = st.lists(
    st.builds(Size, st.floats(20, 300, allow_nan=False), st.sampled_from([32.0, 56.0])), max_size=MOST
)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Size], list[Edge]]:
    """Any directed graph: unconnected, with cycles, with boxes that lead to themselves."""
    sizes = draw(SIZES)
    boxes = st.integers(0, len(sizes) - 1)
    return sizes, draw(st.lists(st.tuples(boxes, boxes), max_size=3 * MOST)) if sizes else []


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def goes_through(start: Point, end: Point, box: Box) -> bool:
    """Whether the curve between two points may touch the box: it stays within their rectangle."""
    (left, right), (top, bottom) = sorted((start[0], end[0])), sorted((start[1], end[1]))
    slack = 1e-6
    return (
        left + slack < box.x + box.width
        and box.x + slack < right
        and top < box.y + box.height - slack
        and box.y + slack < bottom + slack
    )


def touches(point: Point, box: Box) -> bool:
    (x, y), slack = point, 1e-6
    is_beside = box.x - slack <= x <= box.x + box.width + slack
    return is_beside and box.y - slack <= y <= box.y + box.height + slack


@settings(max_examples=150, deadline=None)
@given(graphs())
@pytest.mark.parametrize("wide", [0.0, 1e9], ids=["downwards", "to the right"])
def test_any_graph_can_be_read(wide: float, graph: tuple[list[Size], list[Edge]]) -> None:
    sizes, edges = graph

    layout = arrange_fitting(sizes, edges, wide)

    assert len(layout.boxes) == len(sizes)
    assert not any(overlap(one, other) for one, other in combinations(layout.boxes, 2))
    assert set(layout.routes) == set(edges)
    for (before, after), route in layout.routes.items():
        assert touches(route[0], layout.boxes[before])
        assert touches(route[-1], layout.boxes[after])
        if before != after:
            for start, end in pairwise(route):
                assert not any(goes_through(start, end, box) for box in layout.boxes)
    assert_inside(layout)


def assert_inside(layout: Layout) -> None:
    for box in layout.boxes:
        assert box.x >= -1e-6
        assert box.x + box.width <= layout.width + 1e-6
        assert box.y >= -1e-6
        assert box.y + box.height <= layout.height + 1e-6
    for route in layout.routes.values():
        for x, y in route:
            assert -1e-6 <= x <= layout.width + 1e-6
            assert -1e-6 <= y <= layout.height + 1e-6


@settings(deadline=None)
@given(graphs())
def test_the_same_graph_is_always_drawn_the_same(graph: tuple[list[Size], list[Edge]]) -> None:
    sizes, edges = graph

    assert arrange(sizes, edges) == arrange(sizes, reversed(edges))


def test_without_cycles_every_line_leads_on() -> None:
    edges = [(0, 1), (1, 2), (0, 3), (3, 2), (0, 2)]

    layout = arrange([Size(100, 40)] * 4, edges)

    for before, after in edges:
        assert layout.boxes[before].x < layout.boxes[after].x


def test_a_tree_is_drawn_without_crossings() -> None:
    """Five branches whose ends are numbered the other way round."""
    edges = [(0, number) for number in range(1, 6)] + [(number, 11 - number) for number in range(1, 6)]

    layout = arrange([Size(100, 40)] * 11, edges)

    middles = [layout.boxes[number].y for number in range(1, 6)]
    assert middles == [layout.boxes[11 - number].y for number in range(1, 6)]


def test_a_thicket_is_refused_before_it_costs_anything() -> None:
    edges = [(one, other) for one in range(300) for other in range(one)]

    with pytest.raises(TooManyPlaces):
        arrange([Size(100, 40)] * 300, edges)
