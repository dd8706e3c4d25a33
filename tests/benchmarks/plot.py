"""The result of a benchmark as one picture: how far each figure is on the right side of its target."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from tests.benchmarks.rows import Report, Row

_MET, _MISSED = "#2a7f62", "#c8553d"


def plot(report: Report, path: Path) -> None:
    """Write an SVG. A bar to the left of the line is a target that is met; one decade is ten times."""
    rows = report.rows[::-1]
    figure = Figure(figsize=(9, 0.36 * len(rows) + 1.4))
    axes = figure.subplots()
    shares = [_share_of_target(row) for row in rows]
    axes.barh(
        [row.name for row in rows],
        [share - 1 for share in shares],
        left=1,
        color=[_MET if row.met else _MISSED for row in rows],
    )
    for place, row in enumerate(rows):
        beside = 1.04 * max(1, shares[place])
        axes.text(beside, place, f"{row.ratio:.3g} {row.unit} (wanted {row.wanted})", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(0.09, max(8, *shares))
    axes.set_xlabel("share of the target that is used up (log scale)")
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    about = ", ".join(
        f"{key} {value}" for key, value in report.about.items() if key not in ("date", "machine")
    )
    axes.set_title(f"{report.about['date']} · {report.about['machine']} · {about}", fontsize=8, loc="left")
    # Text as text, and no names by chance: small, and the same for the same figures.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "benchmark"}):
        figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})


def _share_of_target(row: Row) -> float:
    share = row.target / row.ratio if row.higher_is_better else row.ratio / row.target
    return max(share, 0.1)  # what is far below is met all the same, and nothing has no logarithm
