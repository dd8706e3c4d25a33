rule call_variants:
    """All samples together, so that a variant seen in one lends weight to the others."""
    input:
        reference=rules.simulate_genome.output.reference,
        reference_index=rules.simulate_genome.output.reference_index,
        alignments=expand(rules.sort_reads.output.alignments, sample=SAMPLES),
        indexes=expand(rules.sort_reads.output.index, sample=SAMPLES),
    output:
        calls=temp("results/calls/{chromosome}.bcf"),
        index=temp("results/calls/{chromosome}.bcf.csi"),
    log:
        "logs/call_variants/{chromosome}.log",
    script:
        "../scripts/call_variants.py"


rule filter_variants:
    input:
        reference=rules.simulate_genome.output.reference,
        calls=expand(rules.call_variants.output.calls, chromosome=CHROMOSOMES),
        indexes=expand(rules.call_variants.output.index, chromosome=CHROMOSOMES),
    output:
        variants="results/variants.vcf.gz",
        index="results/variants.vcf.gz.tbi",
    log:
        "logs/filter_variants.log",
    params:
        exclude="QUAL<20 || MQ<30",
    script:
        "../scripts/filter_variants.py"
