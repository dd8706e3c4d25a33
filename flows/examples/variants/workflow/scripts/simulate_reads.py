"""Sequence one simulated sample: paired reads with errors, from both of its haplotypes."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pysam

from step import Step, open_log

Codes = npt.NDArray[np.uint8]
"""Bases as numbers: 0 to 3 for A, C, G and T, so that the complement of a base is 3 minus it."""

BASES = np.frombuffer(b"ACGT", dtype=np.uint8)
PLOIDY = 2
READ_LENGTH = 150
FRAGMENT_MEAN = 350
FRAGMENT_DEVIATION = 40
QUALITY_DEVIATION = 3
LOWEST_QUALITY, HIGHEST_QUALITY = 2, 40
PHRED_OFFSET = 33


@dataclass(frozen=True, slots=True)
class Sequencer:
    """A machine that reads both ends of random fragments and errs at a known rate."""

    depth: float
    error_rate: float
    rng: np.random.Generator

    def read_pairs(self, haplotype: Codes) -> tuple[Codes, Codes]:
        """Both ends of enough fragments to cover one of `PLOIDY` haplotypes at its share of depth.

        Returns two arrays of shape (pairs, READ_LENGTH), the second from the opposite strand.
        """
        share = self.depth / PLOIDY
        pairs = round(share * len(haplotype) / (2 * READ_LENGTH))
        lengths = self.rng.normal(FRAGMENT_MEAN, FRAGMENT_DEVIATION, size=pairs).astype(int)
        lengths = lengths.clip(READ_LENGTH, len(haplotype))
        starts = self.rng.integers(0, len(haplotype) - lengths + 1)
        offsets = np.arange(READ_LENGTH)
        left = haplotype[starts[:, None] + offsets]
        right = 3 - haplotype[(starts + lengths - 1)[:, None] - offsets]
        flipped = (self.rng.random(pairs) < 0.5)[:, None]
        return (
            self._with_errors(np.where(flipped, right, left)),
            self._with_errors(np.where(flipped, left, right)),
        )

    def _with_errors(self, reads: Codes) -> Codes:
        wrong = self.rng.random(reads.shape) < self.error_rate
        shifts = self.rng.integers(1, 4, size=reads.shape, dtype=np.uint8)
        return np.where(wrong, (reads + shifts) % 4, reads).astype(np.uint8)

    def qualities(self, count: int) -> Codes:
        """Phred scores around the one that the error rate stands for, as FASTQ characters."""
        typical = -10 * np.log10(self.error_rate)
        scores = self.rng.normal(typical, QUALITY_DEVIATION, size=(count, READ_LENGTH))
        clipped = scores.round().clip(LOWEST_QUALITY, HIGHEST_QUALITY)
        return (clipped + PHRED_OFFSET).astype(np.uint8)


def haplotypes(reference: str, truth: str, sample: str) -> Iterator[tuple[str, Codes]]:
    """The sample's real sequences with a name each: every chromosome `PLOIDY` times."""
    with pysam.FastaFile(reference) as fasta, pysam.VariantFile(truth) as vcf:
        for chromosome in fasta.references:
            records = list(vcf.fetch(chromosome))
            sequence = fasta.fetch(chromosome)
            for number in range(PLOIDY):
                carried = [record for record in records if record.samples[sample]["GT"][number]]
                yield f"{chromosome}_{number + 1}", _encode(_apply(carried, sequence))


def _apply(carried: list[pysam.VariantRecord], sequence: str) -> str:
    pieces, done = [], 0
    for record in carried:
        _, alternative = record.alleles or ()
        pieces += [sequence[done : record.start], alternative]
        done = record.stop
    return "".join([*pieces, sequence[done:]])


def _encode(sequence: str) -> Codes:
    letters = np.frombuffer(sequence.encode(), dtype=np.uint8)
    return np.searchsorted(BASES, letters).astype(np.uint8)


def write_fastq(file: gzip.GzipFile, name: str, reads: Codes, qualities: Codes) -> None:
    """Append the reads, numbered from 1 after `name` so that both ends of a pair match."""
    letters = BASES[reads]
    for number, (read, quality) in enumerate(zip(letters, qualities, strict=True), start=1):
        file.write(
            b"@%s_%d\n%s\n+\n%s\n" % (name.encode(), number, read.tobytes(), quality.tobytes())
        )


def _open_fastq(path: str) -> gzip.GzipFile:
    # A time stamp in the gzip header would make equal reads differ byte by byte.
    return gzip.GzipFile(path, "wb", compresslevel=1, mtime=0)


def main(step: Step) -> None:
    log = open_log(step)
    settings, sample = step.params, step.wildcards.sample
    # The name seeds the generator as well: a sample's reads do not depend on the other samples.
    rng = np.random.default_rng([settings.seed, zlib.crc32(sample.encode())])
    sequencer = Sequencer(settings.depth, settings.error_rate, rng)
    with (
        _open_fastq(step.output.first) as firsts,
        _open_fastq(step.output.second) as seconds,
    ):
        for name, haplotype in haplotypes(step.input.reference, step.input.truth, sample):
            for file, reads in zip((firsts, seconds), sequencer.read_pairs(haplotype), strict=True):
                write_fastq(file, name, reads, sequencer.qualities(len(reads)))
            log.info("%s: %d read pairs from %s", sample, len(reads), name)


if __name__ == "__main__":
    # Snakemake's script directive puts the name here.
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
