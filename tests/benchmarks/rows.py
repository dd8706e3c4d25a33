"""A row of the result: a figure, what it should be, and whether it is."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One comparison; `ratio` is ours against theirs, or a plain figure where `unit` says so."""

    name: str
    ratio: float
    target: float
    higher_is_better: bool = False
    unit: str = "×"
    ours: str = ""
    theirs: str = ""
    cpu: str = ""
    """CPU time of the whole machine, ours and what it is compared with."""

    @property
    def met(self) -> bool:
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.higher_is_better else '≤'} {self.target:g}"


@dataclass
class Report:
    """Every row so far; shown and written as it grows, so that an ended run is not lost."""

    path: Path
    console: Console
    about: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    def add(self, *rows: Row) -> None:
        for row in rows:
            self.rows.append(row)
            mark = "[green]met[/green]" if row.met else "[red]missed[/red]"
            self.console.print(f"{row.name}: {row.ratio:.3g} {row.unit} (wanted {row.wanted}) {mark}")
        self._write()

    def table(self) -> Table:
        table = Table(title="Benchmark", title_justify="left")
        for column in ("what", "figure", "wanted", "met", "ours", "compared with", "CPU, ours : theirs"):
            table.add_column(column)
        for row in self.rows:
            figure = f"{row.ratio:.3g} {row.unit}"
            table.add_row(
                row.name, figure, row.wanted, "yes" if row.met else "NO", row.ours, row.theirs, row.cpu
            )
        return table

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            row.name: {"ratio": row.ratio, "target": row.target, "met": row.met, **_details(row)}
            for row in self.rows
        }
        self.path.write_text(json.dumps({**content, "about": self.about}, indent=2, ensure_ascii=False))


def _details(row: Row) -> dict[str, object]:
    details = asdict(row)
    return {key: details[key] for key in ("unit", "ours", "theirs", "cpu")}


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def seconds(values: Sequence[float]) -> str:
    """Median and range, for people."""
    return f"{median(values):.2f} s ({min(values):.2f}–{max(values):.2f}, n={len(values)})"
