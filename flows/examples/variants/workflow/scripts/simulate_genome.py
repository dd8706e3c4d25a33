"""Make the ground truth: a random reference and the variants that each sample carries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pysam
import pysam.bcftools
import pysam.samtools

from step import Step, open_log

BASES = "ACGT"
FASTA_LINE = 80
GAP_AT_SLOT_ENDS = 25
"""Base pairs kept free on both sides of a variant, lest the caller merge it with the next one."""

LONGEST_INDEL = 12
REPEAT_LENGTH = 1500
SHARE_OF_SNVS = 0.85


@dataclass(frozen=True, slots=True)
class PlantedVariant:
    """One difference from the reference, and on which haplotypes of which samples it lies."""

    chromosome: str
    start: int
    """0-based."""
    reference: str
    alternative: str
    genotypes: tuple[tuple[int, int], ...]
    """One pair for each sample, in the samples' order; 1 means that the haplotype carries it."""


def random_chromosome(length: int, repeats: float, rng: np.random.Generator) -> str:
    """A random sequence in which the fraction `repeats` is copied from another part of it.

    Sources lie in the first half and copies in the second, so that they never overlap.
    """
    codes = rng.integers(0, len(BASES), size=length)
    half = length // 2
    copies = round(length * repeats / REPEAT_LENGTH)
    for source, target in zip(
        _spread(copies, half, REPEAT_LENGTH, rng),
        _spread(copies, half, REPEAT_LENGTH, rng),
        strict=True,
    ):
        copied = codes[source : source + REPEAT_LENGTH]
        codes[half + target : half + target + REPEAT_LENGTH] = copied
    return "".join(BASES[code] for code in codes)


def _spread(count: int, length: int, width: int, rng: np.random.Generator) -> list[int]:
    """Random starts of `count` stretches of `width` within `length`, one in each equal slot."""
    if count == 0:
        return []
    slot = length // count
    return [index * slot + int(rng.integers(0, slot - width + 1)) for index in range(count)]


def plant_variants(
    chromosome: str, sequence: str, count: int, sample_count: int, rng: np.random.Generator
) -> list[PlantedVariant]:
    """`count` variants in order, far enough from each other that none can be mistaken for two."""
    width = LONGEST_INDEL + 2 * GAP_AT_SLOT_ENDS
    return [
        _plant(chromosome, sequence, start + GAP_AT_SLOT_ENDS, sample_count, rng)
        for start in _spread(count, len(sequence), width, rng)
    ]


def _plant(
    chromosome: str, sequence: str, start: int, sample_count: int, rng: np.random.Generator
) -> PlantedVariant:
    anchor = sequence[start]
    size = min(int(rng.geometric(0.4)), LONGEST_INDEL)
    if rng.random() < SHARE_OF_SNVS:
        reference, alternative = anchor, str(rng.choice([base for base in BASES if base != anchor]))
    elif rng.random() < 0.5:
        reference, alternative = anchor, anchor + "".join(rng.choice(list(BASES), size=size))
    else:
        reference, alternative = sequence[start : start + 1 + size], anchor
    return PlantedVariant(chromosome, start, reference, alternative, _genotypes(sample_count, rng))


def _genotypes(sample_count: int, rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Diploid genotypes at a random allele frequency, with at least one carrier."""
    haplotypes = rng.random((sample_count, 2)) < rng.uniform(0.1, 0.9)
    if not haplotypes.any():
        haplotypes[rng.integers(sample_count), rng.integers(2)] = True
    return tuple((int(first), int(second)) for first, second in haplotypes)


def write_reference(sequences: dict[str, str], path: str) -> None:
    """Write FASTA and its index, which two callers at once would otherwise both try to make."""
    with Path(path).open("w") as fasta:
        for name, sequence in sequences.items():
            fasta.write(f">{name}\n")
            fasta.writelines(
                sequence[start : start + FASTA_LINE] + "\n"
                for start in range(0, len(sequence), FASTA_LINE)
            )
    pysam.samtools.faidx(path)


def write_truth(
    variants: Sequence[PlantedVariant],
    sequences: dict[str, str],
    samples: Sequence[str],
    reference: str,
    path: str,
) -> None:
    """Write the variants in the normal form to which the calls will be brought as well."""
    header = pysam.VariantHeader()
    header.formats.add("GT", 1, "String", "Genotype")
    for name, sequence in sequences.items():
        header.contigs.add(name, length=len(sequence))
    for sample in samples:
        header.add_sample(sample)
    as_planted = Path(path).with_name("as_planted.vcf")
    with pysam.VariantFile(str(as_planted), "w", header=header) as vcf:
        for variant in variants:
            vcf.write(_as_record(variant, vcf))
    pysam.bcftools.norm(
        "--no-version", "-f", reference, "-Oz", "-o", path, str(as_planted), catch_stdout=False
    )
    as_planted.unlink()
    pysam.bcftools.index("-t", path)


def _as_record(variant: PlantedVariant, vcf: pysam.VariantFile) -> pysam.VariantRecord:
    record: pysam.VariantRecord = vcf.new_record(
        contig=variant.chromosome,
        start=variant.start,
        alleles=(variant.reference, variant.alternative),
    )
    for column, genotype in zip(record.samples.values(), variant.genotypes, strict=True):
        column["GT"] = genotype
        column.phased = True
    return record


def main(step: Step) -> None:
    log = open_log(step)
    settings, output = step.params, step.output
    rng = np.random.default_rng(settings.seed)
    length = settings.reference_length // len(settings.chromosomes)
    sequences = {
        name: random_chromosome(length, settings.repeats, rng) for name in settings.chromosomes
    }
    write_reference(sequences, output.reference)
    log.info("%d chromosomes of %d bp", len(sequences), length)

    shares = np.array_split(range(settings.variants), len(sequences))
    variants = [
        variant
        for (name, sequence), share in zip(sequences.items(), shares, strict=True)
        for variant in plant_variants(name, sequence, len(share), len(settings.samples), rng)
    ]
    write_truth(variants, sequences, settings.samples, output.reference, output.truth)
    log.info("%d variants in %d samples", len(variants), len(settings.samples))


if __name__ == "__main__":
    # Snakemake's script directive puts the name here.
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
