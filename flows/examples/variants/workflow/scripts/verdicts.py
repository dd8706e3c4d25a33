"""The judgement on each variant of each sample, and the table that carries it between steps."""

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from pathlib import Path


class Outcome(StrEnum):
    """What became of a variant that was planted in a sample, called in it, or both."""

    FOUND = "found"
    """Planted in the sample and called in it."""
    MISSED = "missed"
    """Planted in the sample and not called in it."""
    FALSE = "false"
    """Called in the sample and not planted in it."""


class Kind(StrEnum):
    SNV = "snv"
    INSERTION = "insertion"
    DELETION = "deletion"

    @classmethod
    def of(cls, reference: str, alternative: str) -> "Kind":
        """Tell the kind of a variant in normal form."""
        if len(reference) == len(alternative):
            return cls.SNV
        return cls.INSERTION if len(alternative) > len(reference) else cls.DELETION


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """A place and a change; two variants are the same if all four are equal."""

    chromosome: str
    position: int
    """1-based, as in a VCF."""
    reference: str
    alternative: str

    @property
    def kind(self) -> Kind:
        return Kind.of(self.reference, self.alternative)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one variant in one sample."""

    sample: str
    variant: Variant
    outcome: Outcome
    planted_copies: int
    """On how many of the sample's two haplotypes the variant really is."""
    called_copies: int


COLUMNS = [
    "sample",
    *(field.name for field in fields(Variant)),
    "kind",
    "outcome",
    "planted_copies",
    "called_copies",
]


def write_verdicts(verdicts: Iterable[Verdict], path: str) -> None:
    """Write a tab-separated table with a header, one line a verdict."""
    with Path(path).open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(COLUMNS)
        for verdict in verdicts:
            copies = (verdict.planted_copies, verdict.called_copies)
            variant = verdict.variant
            table.writerow(
                [verdict.sample, *astuple(variant), variant.kind, verdict.outcome, *copies]
            )


def read_verdicts(path: str) -> list[Verdict]:
    """Read back what `write_verdicts` wrote."""
    with Path(path).open(newline="") as file:
        return [_as_verdict(row) for row in csv.DictReader(file, delimiter="\t")]


def _as_verdict(row: dict[str, str]) -> Verdict:
    return Verdict(
        sample=row["sample"],
        variant=Variant(
            row["chromosome"], int(row["position"]), row["reference"], row["alternative"]
        ),
        outcome=Outcome(row["outcome"]),
        planted_copies=int(row["planted_copies"]),
        called_copies=int(row["called_copies"]),
    )
