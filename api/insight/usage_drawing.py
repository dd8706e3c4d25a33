"""Draws what a job took as an SVG: a row for each rule, and what others had to wait for. Pure."""

from collections.abc import Sequence
from xml.etree import ElementTree

from api.insight.svg import HEAD, MARGIN, add, document, duration, encoded, shortened
from api.insight.usage import RuleUsage, Spread, Step, Usage

_WIDTH = 1000.0
_ROW = 26.0
_BAR = 10.0
_NAME_CELLS = 26
_COLUMNS = {"Time": (250.0, 260.0), "CPU efficiency": (590.0, 130.0), "Peak memory": (770.0, 100.0)}
"""Left edge and width of the bars; their numbers stand to the right."""
_MOST_ROWS = 60
_MEGABYTE = 1_000_000


def draw_usage(usage: Usage, heading: str) -> bytes:
    """The document: bars end at the median, thin ones at the largest value."""
    rules, steps = usage.rules[:_MOST_ROWS], usage.critical_path[:_MOST_ROWS]
    height = HEAD + (len(rules) + len(steps) + 5) * _ROW
    svg = document(_WIDTH, height, heading, _subheading(usage))
    y = HEAD + _ROW
    _add_header(svg, y)
    longest = max((rule.seconds.largest for rule in rules), default=0.0)
    for rule in rules:
        y += _ROW
        _add_rule(svg, rule, y, longest)
    y += 2 * _ROW
    add(svg, "text", _class="note", x=MARGIN, y=y, text="Rule jobs that others had to wait for")
    _add_steps(svg, steps, y)
    return encoded(svg)


def _subheading(usage: Usage) -> str:
    parts = [
        f"{duration(usage.seconds)}" if usage.seconds is not None else "running",
        f"waited {duration(usage.waiting_seconds)}" if usage.waiting_seconds else "",
        f"CPU {duration(usage.cpu_seconds)}",
        f"{usage.cpu_efficiency:.0%} of {usage.cores} cores" if usage.cpu_efficiency is not None else "",
        f"{usage.cost_usd:.2f} USD" if usage.cost_usd is not None else "",
    ]
    return " · ".join(part for part in parts if part)


def _add_header(svg: ElementTree.Element, y: float) -> None:
    add(svg, "text", _class="note", x=MARGIN, y=y, text="Rule")
    for title, (left, _) in _COLUMNS.items():
        add(svg, "text", _class="note", x=left, y=y, text=title)


def _add_rule(svg: ElementTree.Element, rule: RuleUsage, y: float, longest: float) -> None:
    row = add(svg, "g")
    add(row, "title", text=_details(rule))
    add(row, "text", _class="name", x=MARGIN, y=y, text=shortened(rule.rule, _NAME_CELLS))
    times = f"{rule.jobs} × {duration(rule.seconds.median)}"
    _add_bars(row, "Time", y, rule.seconds, longest, times, "running")
    if rule.cpu_efficiency is not None:
        text = f"{rule.cpu_efficiency.median:.0%}"
        _add_bars(row, "CPU efficiency", y, rule.cpu_efficiency, 1.0, text, "completed")
    if (memory := rule.peak_memory_bytes) is not None:
        asked = rule.requested_mem_mb
        text = f"{memory.largest / _MEGABYTE:,.0f}" + (f" of {asked:,.0f}" if asked else "") + " MB"
        scale = asked * _MEGABYTE if asked else memory.largest
        _add_bars(
            row, "Peak memory", y, memory, scale, text, "skipped" if memory.largest <= scale else "failed"
        )


def _add_bars(
    parent: ElementTree.Element, column: str, y: float, spread: Spread, scale: float, text: str, kind: str
) -> None:
    left, width = _COLUMNS[column]
    top = y - _BAR
    add(parent, "rect", _class="rail", x=left, y=top, width=width, height=_BAR, rx=2)
    for value, height in ((spread.median, _BAR), (spread.largest, _BAR / 3)):
        share = min(1.0, value / scale) if scale else 0.0
        middle = top + (_BAR - height) / 2
        add(parent, "rect", _class=kind, x=left, y=middle, width=share * width, height=height, rx=1)
    add(parent, "text", _class="note count", x=left + width + 8, y=y, text=text)


def _details(rule: RuleUsage) -> str:
    suggested = rule.suggested
    parts = [
        f"{rule.rule}: {rule.jobs} rule jobs, {rule.attempts} attempts, {rule.threads} threads",
        f"median {duration(rule.seconds.median)}, largest {duration(rule.seconds.largest)}",
        f"enough: {suggested.runtime} min"
        + (f", {suggested.mem_mb} MB" if suggested.mem_mb else "")
        + (f", {suggested.threads} threads" if suggested.threads else ""),
    ]
    return "\n".join(parts)


def _add_steps(svg: ElementTree.Element, steps: Sequence[Step], y: float) -> None:
    """One after the other from left to right, as they ran."""
    left, width = 250.0, _WIDTH - 250.0 - MARGIN - 70
    whole = sum(step.seconds + step.waited_seconds for step in steps)
    x = left
    for step in steps:
        y += _ROW
        x += width * step.waited_seconds / whole if whole else 0.0
        length = width * step.seconds / whole if whole else 0.0
        row = add(svg, "g")
        waited = f", waited {duration(step.waited_seconds)}" if step.waited_seconds else ""
        add(row, "title", text=f"{step.name}: {duration(step.seconds)}{waited}")
        add(row, "text", _class="name", x=MARGIN, y=y, text=shortened(step.name, _NAME_CELLS))
        add(row, "rect", _class="running", x=x, y=y - _BAR, width=max(length, 1.0), height=_BAR, rx=1)
        add(row, "text", _class="note count", x=x + length + 8, y=y, text=duration(step.seconds))
        x += length
