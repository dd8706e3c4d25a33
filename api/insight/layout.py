"""Lays out a directed graph: positions of boxes, and routes of lines. Pure.

This is Sugiyama's method. Boxes are assigned to columns so that lines lead to the right. A line that
passes a column gets a place of its own in it. Columns are ordered for few crossings, then moved for
straight lines. No boxes overlap, and no line crosses a box. A layout downwards is one to the right,
mirrored at the diagonal.

No library fits: Graphviz is a separate program, networkx does not route lines, and grandalf is not
maintained.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Edge = tuple[int, int]
Point = tuple[float, float]

BOX_GAP = 16.0
_COLUMN_GAP = 46.0
_COLUMN_GAP_PER_LINE = 2.5
_WIDEST_GAP = 110.0
_LINE_HEIGHT = 2.0
"""The height of a line in a column that it passes, without the gap to its neighbours."""

_ORDERINGS = 12
_MOVES = 8
_STRAIGHTNESS = 4.0
"""How much more a passing line weighs than a box: bends between boxes are ugly."""


class TooManyPlaces(ValueError):
    """The lines pass so many columns that nobody could follow them."""


@dataclass(frozen=True, slots=True)
class Size:
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Box:
    """A placed box, by its upper left corner. It is as wide as the widest box of its column."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes in the order of their sizes, and a route for every edge.

    A route leads from box to box. It is straight where it passes a column, and bends in the gaps between
    columns. The route of an edge from a box to itself is its start and end on the box's upper side, or
    on the left side if the layout is downwards.
    """

    boxes: tuple[Box, ...]
    routes: Mapping[Edge, tuple[Point, ...]]
    width: float
    height: float
    is_downwards: bool = False

    def turned(self) -> "Layout":
        """The same layout, mirrored at the diagonal."""
        return Layout(
            tuple(Box(box.y, box.x, box.height, box.width) for box in self.boxes),
            {edge: tuple((y, x) for x, y in route) for edge, route in self.routes.items()},
            self.height,
            self.width,
            is_downwards=not self.is_downwards,
        )


def arrange_fitting(sizes: Sequence[Size], edges: Collection[Edge], wide: float) -> Layout:
    """To the right if it is not wider than `wide`; else to the right or downwards, whichever is narrower.

    Raises `TooManyPlaces`.
    """
    layout = arrange(sizes, edges)
    if layout.width <= wide:
        return layout
    downwards = arrange([Size(size.height, size.width) for size in sizes], edges).turned()
    return min(layout, downwards, key=lambda found: found.width)


def arrange(sizes: Sequence[Size], edges: Iterable[Edge], most_places: int = 20_000) -> Layout:
    """A layout to the right, deterministic. Raises `TooManyPlaces`."""
    wanted = sorted(set(edges))
    forward = _without_cycles(len(sizes), [edge for edge in wanted if edge[0] != edge[1]])
    columns = _columns(len(sizes), set(forward.values()))
    grid = _Grid.of(columns, sorted(set(forward.values())), most_places)
    _order(grid)
    heights = [size.height for size in sizes] + [_LINE_HEIGHT] * (len(grid.column_of) - len(sizes))
    middles = _move(grid, heights, len(sizes))
    lefts, widths = _across(grid, sizes)
    boxes = tuple(
        Box(lefts[column], middles[item] - size.height / 2, widths[column], size.height)
        for item, (size, column) in enumerate(zip(sizes, grid.column_of, strict=False))
    )
    routes: dict[Edge, tuple[Point, ...]] = {}
    for edge in wanted:
        if edge[0] == edge[1]:
            box = boxes[edge[0]]
            routes[edge] = ((box.x + box.width * 0.7, box.y), (box.x + box.width * 0.88, box.y))
            continue
        route = tuple(_route(grid, forward[edge], lefts, widths, middles))
        routes[edge] = route if forward[edge] == edge else route[::-1]
    return Layout(
        boxes,
        routes,
        width=lefts[-1] + widths[-1] if lefts else 0.0,
        height=max((middle + heights[item] / 2 for item, middle in enumerate(middles)), default=0.0),
    )


@dataclass
class _Grid:
    """Columns of boxes, and of places where lines pass. Numbers of places follow those of the boxes."""

    columns: list[list[int]]
    column_of: list[int]
    passed: dict[tuple[int, int], int] = field(default_factory=dict)
    """The place by (first box of the line, column). Lines from the same box share it until they part."""
    before: dict[int, list[int]] = field(default_factory=dict)
    after: dict[int, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, column_of: list[int], edges: Collection[Edge], most_places: int) -> "_Grid":
        columns: list[list[int]] = [[] for _ in range(max(column_of, default=-1) + 1)]
        for item, column in enumerate(column_of):
            columns[column].append(item)
        grid = cls(columns, list(column_of))
        steps: set[Edge] = set()
        length = 0
        for start, end in edges:
            length += column_of[end] - column_of[start]
            if length > most_places:
                raise TooManyPlaces(f"the lines of the graph pass more than {most_places} columns")
            path = list(grid._path(start, end))
            steps.update(pairwise(path))
        for start, end in sorted(steps):
            grid.after.setdefault(start, []).append(end)
            grid.before.setdefault(end, []).append(start)
        return grid

    def _path(self, start: int, end: int) -> Iterator[int]:
        """The boxes and places that a line goes through; creates missing places."""
        yield start
        for column in range(self.column_of[start] + 1, self.column_of[end]):
            place = self.passed.get((start, column))
            if place is None:
                place = self.passed[start, column] = len(self.column_of)
                self.column_of.append(column)
                self.columns[column].append(place)
            yield place
        yield end


def _without_cycles(count: int, edges: Collection[Edge]) -> dict[Edge, Edge]:
    """Each edge, reversed if it closes a cycle.

    Rule jobs have no cycles, but their rules may: `a` of 2 needs `b` of 1, which needs `a` of 1.
    """
    after: list[list[int]] = [[] for _ in range(count)]
    for start, end in edges:
        after[start].append(end)
    is_open, is_closed = [False] * count, [False] * count
    turned: set[Edge] = set()
    has_before = {end for _, end in edges}
    for root in sorted(range(count), key=lambda item: (item in has_before, item)):
        walk = [(root, iter(after[root]))] if not is_closed[root] else []
        is_open[root] = bool(walk)
        while walk:
            item, rest = walk[-1]
            for end in rest:
                if is_open[end]:
                    turned.add((item, end))
                elif not is_closed[end]:
                    is_open[end] = True
                    walk.append((end, iter(after[end])))
                    break
            else:
                walk.pop()
                is_open[item], is_closed[item] = False, True
    return {edge: edge[::-1] if edge in turned else edge for edge in edges}


def _columns(count: int, edges: Collection[Edge]) -> list[int]:
    """The column of each box: as far left as possible, unless further right makes lines shorter."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for start, end in edges:
        after[start].append(end)
        before[end].append(start)
    waits_for = [len(items) for items in before]
    order = [item for item in range(count) if not waits_for[item]]
    columns = [0] * count
    for item in order:  # grows during the loop
        for end in after[item]:
            columns[end] = max(columns[end], columns[item] + 1)
            waits_for[end] -= 1
            if not waits_for[end]:
                order.append(end)
    for item in reversed(order):
        if after[item] and len(after[item]) >= len(before[item]):
            columns[item] = min(columns[end] for end in after[item]) - 1
    return columns


def _order(grid: _Grid) -> None:
    """Orders every column for few crossings: the best of several barycentre sweeps."""
    best, fewest = [list(column) for column in grid.columns], _crossings(grid)
    for sweep in range(_ORDERINGS):
        if not fewest:
            break
        is_forward = sweep % 2 == 0
        neighbours = grid.before if is_forward else grid.after
        for column in grid.columns[1:] if is_forward else grid.columns[-2::-1]:
            _sort_by_neighbours(grid, column, neighbours)
        crossings = _crossings(grid)
        if crossings < fewest:
            best, fewest = [list(column) for column in grid.columns], crossings
    grid.columns = best


def _sort_by_neighbours(grid: _Grid, column: list[int], neighbours: Mapping[int, list[int]]) -> None:
    rank = {
        item: place
        for other in {grid.column_of[item] for end in column for item in neighbours.get(end, ())}
        for place, item in enumerate(grid.columns[other])
    }
    wishes = {
        item: sum(rank[other] for other in neighbours[item]) / len(neighbours[item])
        if item in neighbours
        else float(place)
        for place, item in enumerate(column)
    }
    column.sort(key=wishes.__getitem__)


def _crossings(grid: _Grid) -> int:
    count = 0
    for left, right in pairwise(grid.columns):
        rank = {item: place for place, item in enumerate(right)}
        ends: list[int] = []
        for item in left:
            own = sorted(rank[end] for end in grid.after.get(item, ()))
            count += sum(len(ends) - bisect_left(ends, end + 1) for end in own)
            for end in own:
                insort(ends, end)
    return count


def _move(grid: _Grid, heights: Sequence[float], boxes: int) -> list[float]:
    """The middle of every box and place: near its neighbours, in the order of the column, with gaps."""
    middles = [0.0] * len(grid.column_of)
    both = {item: [*grid.before.get(item, ()), *grid.after.get(item, ())] for item in range(len(middles))}
    for column in grid.columns:
        _settle(column, heights, middles, {}, boxes)
    for _ in range(_MOVES):
        for column in grid.columns[1:]:
            _settle(column, heights, middles, grid.before, boxes)
        for column in grid.columns[-2::-1]:
            _settle(column, heights, middles, grid.after, boxes)
    for _ in range(_MOVES):
        for column in grid.columns:
            _settle(column, heights, middles, both, boxes)
    top = min((middle - heights[item] / 2 for item, middle in enumerate(middles)), default=0.0)
    return [middle - top for middle in middles]


def _settle(
    column: Sequence[int],
    heights: Sequence[float],
    middles: list[float],
    neighbours: Mapping[int, Sequence[int]],
    boxes: int,
) -> None:
    """Moves the items of a column as near to the mean of their neighbours as the gaps allow.

    Least squares with a fixed order is isotonic regression: items that would be too close form a block,
    which moves to the mean of their wishes (pool adjacent violators).
    """
    blocks: list[tuple[float, float, int]] = []  # wish, weight, number of items
    offsets: list[float] = []
    offset = 0.0
    for index, item in enumerate(column):
        if index:
            offset += (heights[column[index - 1]] + heights[item]) / 2 + BOX_GAP
        offsets.append(offset)
        others = neighbours.get(item, ())
        wish = sum(middles[other] for other in others) / len(others) if others else middles[item]
        weight = 0.1 if not others else 1.0 if item < boxes else _STRAIGHTNESS
        block = (wish - offset, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            before = blocks.pop()
            total = before[1] + block[1]
            block = ((before[0] * before[1] + block[0] * block[1]) / total, total, before[2] + block[2])
        blocks.append(block)
    index = 0
    for wish, _, count in blocks:
        for _ in range(count):
            middles[column[index]] = wish + offsets[index]
            index += 1


def _across(grid: _Grid, sizes: Sequence[Size]) -> tuple[list[float], list[float]]:
    """Left side and width of every column."""
    lefts: list[float] = []
    widths: list[float] = []
    left = 0.0
    for column in grid.columns:
        lefts.append(left)
        widths.append(max((sizes[item].width for item in column if item < len(sizes)), default=0.0))
        lines = sum(len(grid.after.get(item, ())) for item in column)
        left += widths[-1] + min(_WIDEST_GAP, _COLUMN_GAP + _COLUMN_GAP_PER_LINE * lines)
    return lefts, widths


def _route(
    grid: _Grid, edge: Edge, lefts: Sequence[float], widths: Sequence[float], middles: Sequence[float]
) -> Iterator[Point]:
    start, end = edge
    column = grid.column_of[start]
    yield lefts[column] + widths[column], middles[start]
    for column in range(grid.column_of[start] + 1, grid.column_of[end]):
        height = middles[grid.passed[start, column]]
        yield lefts[column], height
        yield lefts[column] + widths[column], height
    yield lefts[grid.column_of[end]], middles[end]
