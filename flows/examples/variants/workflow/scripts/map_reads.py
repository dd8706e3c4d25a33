"""Map one sample's read pairs to the reference with minimap2."""

import pyminimap2  # type: ignore[import-untyped]  # it ships no types

from step import Step, open_log

LAST_LINE_OF_A_GOOD_RUN = "[M::mm2_main] Real time"


def map_pairs(reference: str, reads: list[str], sample: str, threads: int, sam: str) -> str:
    """Write the alignments of both ends of every pair to `sam`, and return what minimap2 said.

    Raises RuntimeError if minimap2 did not reach its end: the binding returns no exit code
    (https://github.com/TheFangLab/pyminimap2, `_pyminimap2.c`).
    """
    read_group = rf"@RG\tID:{sample}\tSM:{sample}"
    arguments = ["-ax", "sr", "-t", str(threads), "-R", read_group, "-o", sam, reference, *reads]
    _, said = pyminimap2.main(arguments)
    if LAST_LINE_OF_A_GOOD_RUN not in said:
        raise RuntimeError(f"minimap2 could not map the reads of {sample}:\n{said}")
    return str(said)


def main(step: Step) -> None:
    log = open_log(step)
    said = map_pairs(
        step.input.reference,
        [step.input.first, step.input.second],
        step.wildcards.sample,
        step.threads,
        step.output[0],
    )
    log.info("minimap2 said:\n%s", said)


if __name__ == "__main__":
    # Snakemake's script directive puts the name here.
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
