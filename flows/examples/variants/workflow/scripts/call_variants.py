"""Call the variants of all samples on one chromosome with bcftools."""

import tempfile
from collections.abc import Sequence

import pysam
import pysam.bcftools

from step import Step, open_log

LOWEST_MAPPING_QUALITY = "20"


def call(chromosome: str, reference: str, alignments: Sequence[str], calls: str) -> None:
    """Write the variant sites of one chromosome, all samples side by side, to `calls` (BCF)."""
    with tempfile.NamedTemporaryFile(suffix=".bcf") as likelihoods:
        pysam.bcftools.mpileup(
            "--no-version", "-q", LOWEST_MAPPING_QUALITY, "-a", "FORMAT/AD,FORMAT/DP",
            "-r", chromosome, "-f", reference, "-Ou", "-o", likelihoods.name, *alignments,
            catch_stdout=False,
        )  # fmt: skip
        pysam.bcftools.call(
            "--no-version", "-mv", "-Ob", "-o", calls, likelihoods.name, catch_stdout=False
        )


def main(step: Step) -> None:
    log = open_log(step)
    call(
        step.wildcards.chromosome,
        step.input.reference,
        step.input.alignments,
        step.output.calls,
    )
    pysam.bcftools.index("-o", step.output.index, step.output.calls)
    with pysam.VariantFile(step.output.calls) as vcf:
        log.info("%d calls on %s", sum(1 for _ in vcf), step.wildcards.chromosome)


if __name__ == "__main__":
    # Snakemake's script directive puts the name here.
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
