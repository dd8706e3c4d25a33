"""The result of a benchmark as one picture: how far each figure is on the right side of its target."""

import math
from pathlib import Path

from api.insight.svg import HEAD, MARGIN, add, document, encoded
from tests.benchmarks.rows import Report, Row

_WIDTH = 1000.0
_ROW = 24.0
_BAR = 12.0
_LEFT, _RIGHT = 440.0, 760.0
_LEAST, _MOST = 0.1, 8.0
"""Shares of the target at the edges: what is beyond is drawn there."""


def plot(report: Report, path: Path) -> None:
    """Write an SVG. A bar to the left of the line is a target that is met; the scale is logarithmic."""
    about = ", ".join(f"{key} {value}" for key, value in report.about.items())
    height = HEAD + _ROW * (len(report.rows) + 1)
    svg = document(_WIDTH, height, "Share of the target that is used up", about)
    target = _x(1)
    for place, row in enumerate(report.rows, start=1):
        y = HEAD + place * _ROW
        end = _x(_share_of_target(row))
        color = "completed" if row.met else "failed"
        add(svg, "text", _class="note", x=MARGIN, y=y, text=row.name)
        left, width = min(end, target), abs(end - target)
        add(svg, "rect", _class=color, x=left, y=y - _BAR + 2, width=width, height=_BAR)
        text = f"{row.ratio:.3g} {row.unit} (wanted {row.wanted})"
        add(svg, "text", _class="note count", x=max(end, target) + 8, y=y, text=text)
    add(svg, "line", stroke="currentColor", x1=target, x2=target, y1=HEAD, y2=height - _ROW / 2)
    path.write_bytes(encoded(svg))


def _x(share: float) -> float:
    within = min(max(share, _LEAST), _MOST)
    return _LEFT + (_RIGHT - _LEFT) * math.log(within / _LEAST) / math.log(_MOST / _LEAST)


def _share_of_target(row: Row) -> float:
    if row.higher_is_better:
        return row.target / row.ratio
    return row.ratio / row.target
