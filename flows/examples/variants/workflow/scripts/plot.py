"""Draw how deep each sample was sequenced, and where its variants were found or missed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pysam.samtools
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from step import Step, open_log
from verdicts import Outcome, Verdict, read_verdicts

WINDOW = 500
"""Base pairs over which the depth is averaged: its noise from base to base hides its shape."""

CERTAIN_MAPPING_QUALITY = "20"

# Distinct for colour-blind readers too (Okabe and Ito), and each outcome has a row of its own.
COLOURS = {Outcome.FOUND: "#009E73", Outcome.MISSED: "#D55E00", Outcome.FALSE: "#CC79A7"}
ROWS = {outcome: row for row, outcome in enumerate(reversed(Outcome))}


def mean_depth(alignments: str, chromosome: str) -> npt.NDArray[np.float64]:
    """The mean depth of the reads that were placed for certain, in each window of a chromosome."""
    table = pysam.samtools.depth("-aa", "-Q", CERTAIN_MAPPING_QUALITY, "-r", chromosome, alignments)
    rows = str(table).splitlines()
    depth = np.array([row.rsplit("\t", 1)[1] for row in rows], dtype=np.float64)
    whole = len(depth) // WINDOW * WINDOW
    return np.asarray(depth[:whole].reshape(-1, WINDOW).mean(axis=1))


def draw_depth(axes: Axes, depth: npt.NDArray[np.float64], sample: str) -> None:
    middles = (np.arange(len(depth)) + 0.5) * WINDOW / 1000
    axes.fill_between(middles, depth, step="mid", color="#56B4E9", linewidth=0)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{sample}\ndepth")


def draw_outcomes(axes: Axes, verdicts: Sequence[Verdict]) -> None:
    for outcome, row in ROWS.items():
        places = [
            verdict.variant.position / 1000 for verdict in verdicts if verdict.outcome is outcome
        ]
        axes.eventplot(places, lineoffsets=row, linelengths=0.8, colors=COLOURS[outcome])
    axes.set_yticks(list(ROWS.values()), list(ROWS))
    axes.set_ylim(-0.6, len(ROWS) - 0.4)


def draw(
    samples: Sequence[str],
    chromosomes: Sequence[str],
    alignments: Sequence[str],
    verdicts: Sequence[Verdict],
) -> Figure:
    """One column for each chromosome; for each sample its depth above its outcomes."""
    figure = Figure(
        figsize=(6 * len(chromosomes) + 1, 2.4 * len(samples) + 0.6), layout="constrained"
    )
    grid = figure.subplots(
        2 * len(samples),
        len(chromosomes),
        sharex="col",
        squeeze=False,
        height_ratios=[2, 1] * len(samples),
    )
    for row, (sample, path) in enumerate(zip(samples, alignments, strict=True)):
        for column, chromosome in enumerate(chromosomes):
            draw_depth(grid[2 * row, column], mean_depth(path, chromosome), sample)
            drawn = [
                verdict
                for verdict in verdicts
                if verdict.sample == sample and verdict.variant.chromosome == chromosome
            ]
            draw_outcomes(grid[2 * row + 1, column], drawn)
    for column, chromosome in enumerate(chromosomes):
        grid[0, column].set_title(chromosome)
        grid[-1, column].set_xlabel("position (kb)")
    return figure


def main(step: Step) -> None:
    log = open_log(step)
    verdicts = read_verdicts(step.input.comparison)
    figure = draw(
        step.params.samples,
        step.params.chromosomes,
        step.input.alignments,
        verdicts,
    )
    figure.savefig(step.output[0], dpi=110)
    log.info("%d verdicts drawn", len(verdicts))


if __name__ == "__main__":
    # Snakemake's script directive puts the name here.
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
