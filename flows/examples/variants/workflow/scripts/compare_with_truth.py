"""Hold the called variants against the planted ones, sample by sample."""

from collections import Counter
from collections.abc import Mapping

import pysam

from step import Step, open_log
from verdicts import Outcome, Variant, Verdict, write_verdicts

Copies = dict[str, dict[Variant, int]]
"""For each sample, the variants that it carries and on how many haplotypes."""


def read_copies(path: str) -> Copies:
    """Read which sample carries what from a VCF with one alternative allele a line."""
    with pysam.VariantFile(path) as vcf:
        copies: Copies = {sample: {} for sample in vcf.header.samples}
        for record in vcf:
            reference, alternative = record.alleles or ()
            variant = Variant(record.chrom, record.pos, reference, alternative)
            for sample, carried in copies.items():
                count = sum(allele == 1 for allele in record.samples[sample]["GT"])
                if count:
                    carried[variant] = count
    return copies


def judge(
    sample: str, planted: Mapping[Variant, int], called: Mapping[Variant, int]
) -> list[Verdict]:
    """A verdict on every variant that was planted or called in one sample, in order."""
    return [
        Verdict(
            sample,
            variant,
            _outcome(variant in planted, variant in called),
            planted.get(variant, 0),
            called.get(variant, 0),
        )
        for variant in sorted(planted.keys() | called.keys())
    ]


def _outcome(is_planted: bool, is_called: bool) -> Outcome:
    if is_planted and is_called:
        return Outcome.FOUND
    return Outcome.MISSED if is_planted else Outcome.FALSE


def main(step: Step) -> None:
    log = open_log(step)
    planted, called = read_copies(step.input.truth), read_copies(step.input.calls)
    verdicts = [
        verdict for sample in planted for verdict in judge(sample, planted[sample], called[sample])
    ]
    write_verdicts(verdicts, step.output[0])
    log.info("%s", dict(Counter(verdict.outcome.value for verdict in verdicts)))


if __name__ == "__main__":
    # Snakemake's script directive puts the name here.
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
