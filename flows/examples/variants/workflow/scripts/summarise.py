"""Tell how many of the planted variants were found, for a program and for a reader."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from step import Step, open_log
from verdicts import Kind, Outcome, Variant, Verdict, read_verdicts

Report = dict[str, int | float | None]
"""A score's counts and ratios by name, ready for JSON."""


HOW_COUNTED = (
    "A variant counts once above and in the second table, as found if it was found in any sample "
    "that carries it; in the first table it counts for each sample that carries it."
)


@dataclass(frozen=True, slots=True)
class Score:
    """How well a set of calls matches what was planted."""

    found: int
    missed: int
    false: int

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> "Score":
        counted = list(outcomes)
        return cls(*(counted.count(outcome) for outcome in Outcome))

    @property
    def recall(self) -> float | None:
        """The share of the planted variants that were found; None if none was planted."""
        planted = self.found + self.missed
        return self.found / planted if planted else None

    @property
    def precision(self) -> float | None:
        """The share of the calls that are right; None if nothing was called."""
        called = self.found + self.false
        return self.found / called if called else None

    def as_report(self) -> Report:
        return {
            "planted": self.found + self.missed,
            "found": self.found,
            "missed": self.missed,
            "false": self.false,
            "recall": _rounded(self.recall),
            "precision": _rounded(self.precision),
        }


def across_samples(verdicts: Iterable[Verdict]) -> dict[Variant, Outcome]:
    """One outcome for each variant, however many samples have it.

    - found: found in at least one sample that carries it;
    - missed: carried by some sample, found in none;
    - false: called somewhere, carried by no sample.
    """
    rank = [Outcome.FALSE, Outcome.MISSED, Outcome.FOUND]
    best: dict[Variant, Outcome] = {}
    for verdict in verdicts:
        known = best.get(verdict.variant, Outcome.FALSE)
        best[verdict.variant] = max(known, verdict.outcome, key=rank.index)
    return best


def genotype_agreement(verdicts: Iterable[Verdict]) -> float | None:
    """The share of the found variants called on the right number of haplotypes."""
    found = [verdict for verdict in verdicts if verdict.outcome is Outcome.FOUND]
    right = [verdict for verdict in found if verdict.planted_copies == verdict.called_copies]
    return len(right) / len(found) if found else None


def summarise(verdicts: Sequence[Verdict], samples: Sequence[str]) -> dict[str, Any]:
    """The whole summary, ready for JSON: `overall`, `kinds` and `samples`."""
    outcomes = across_samples(verdicts)
    of_sample = {
        name: [verdict for verdict in verdicts if verdict.sample == name] for name in samples
    }
    return {
        "overall": Score.of(outcomes.values()).as_report(),
        "kinds": {
            kind.value: Score.of(
                outcome for variant, outcome in outcomes.items() if variant.kind is kind
            ).as_report()
            for kind in Kind
        },
        "samples": {
            name: {
                **Score.of(verdict.outcome for verdict in own).as_report(),
                "genotype_agreement": _rounded(genotype_agreement(own)),
            }
            for name, own in of_sample.items()
        },
    }


def as_text(summary: Mapping[str, Any]) -> str:
    """The summary as Markdown, beginning with the one sentence that most readers want."""
    overall = summary["overall"]
    verdict = (
        f"{overall['found']} of {overall['planted']} planted variants were found "
        f"(recall {_percent(overall['recall'])}), and {overall['false']} calls were false "
        f"(precision {_percent(overall['precision'])})."
    )
    tables = [*_table("sample", summary["samples"]), "", *_table("kind", summary["kinds"])]
    return "\n".join(["# Variant calling", "", verdict, "", *tables, "", HOW_COUNTED, ""])


def _table(heading: str, reports: Mapping[str, Report]) -> list[str]:
    columns = ["planted", "found", "missed", "false", "recall", "precision"]
    lines = [
        f"| {heading} | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, report in reports.items():
        counts = [str(report[column]) for column in columns[:4]]
        ratios = [_percent(report[column]) for column in columns[4:]]
        lines.append(f"| {name} | " + " | ".join(counts + ratios) + " |")
    return lines


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)


def _percent(ratio: float | None) -> str:
    return "n/a" if ratio is None else f"{ratio:.1%}"


def main(step: Step) -> None:
    log = open_log(step)
    summary = summarise(read_verdicts(step.input[0]), step.params.samples)
    Path(step.output.data).write_text(json.dumps(summary, indent=2) + "\n")
    text = as_text(summary)
    Path(step.output.text).write_text(text)
    log.info("%s", text)


if __name__ == "__main__":
    # Snakemake's script directive puts the name here.
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
