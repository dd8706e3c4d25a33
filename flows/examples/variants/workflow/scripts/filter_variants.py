"""Join the chromosomes' calls into the VCF to be delivered, without the doubtful ones."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pysam
import pysam.bcftools

from step import Step, open_log


def keep_good_calls(calls: Sequence[str], reference: str, exclude: str, variants: str) -> None:
    """Write the calls that the bcftools expression `exclude` spares, one allele a line.

    Indels are moved as far left as they go, the form in which the truth is written too.
    """
    with tempfile.TemporaryDirectory() as directory:
        joined, normal = (str(Path(directory, name)) for name in ("joined.bcf", "normal.bcf"))
        pysam.bcftools.concat("--no-version", "-Ou", "-o", joined, *calls, catch_stdout=False)
        pysam.bcftools.norm(
            "--no-version", "-m", "-any", "-f", reference, "-Ou", "-o", normal, joined,
            catch_stdout=False,
        )  # fmt: skip
        pysam.bcftools.filter(
            "--no-version", "-e", exclude, "-Oz", "-o", variants, normal, catch_stdout=False
        )


def main(step: Step) -> None:
    log = open_log(step)
    variants = step.output.variants
    keep_good_calls(step.input.calls, step.input.reference, step.params.exclude, variants)
    pysam.bcftools.index("-t", "-o", step.output.index, variants)
    with pysam.VariantFile(variants) as vcf:
        log.info("%d variants kept (dropped: %s)", sum(1 for _ in vcf), step.params.exclude)


if __name__ == "__main__":
    # Snakemake's script directive puts the name here.
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
