"""Sort one sample's alignments by position and index them, as the caller needs."""

import pysam.samtools

from step import Step, open_log


def main(step: Step) -> None:
    log = open_log(step)
    alignments = step.output.alignments
    pysam.samtools.sort("--no-PG", "-@", str(step.threads - 1), "-o", alignments, step.input[0])
    pysam.samtools.index(alignments, step.output.index)
    log.info("%s", pysam.samtools.flagstat(alignments))


if __name__ == "__main__":
    # Snakemake's script directive puts the name here.
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
