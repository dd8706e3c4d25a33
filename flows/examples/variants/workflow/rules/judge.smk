rule compare_with_truth:
    input:
        truth=rules.simulate_genome.output.truth,
        calls=rules.filter_variants.output.variants,
    output:
        "results/comparison.tsv",
    log:
        "logs/compare_with_truth.log",
    script:
        "../scripts/compare_with_truth.py"


rule plot:
    input:
        comparison=rules.compare_with_truth.output[0],
        alignments=expand(rules.sort_reads.output.alignments, sample=SAMPLES),
        indexes=expand(rules.sort_reads.output.index, sample=SAMPLES),
    output:
        report("results/plot.png", category="Results"),
    log:
        "logs/plot.log",
    params:
        samples=SAMPLES,
        chromosomes=CHROMOSOMES,
    script:
        "../scripts/plot.py"


rule summarise:
    input:
        rules.compare_with_truth.output,
    output:
        data="results/summary.json",
        text="results/summary.md",
    log:
        "logs/summarise.log",
    params:
        samples=SAMPLES,
    script:
        "../scripts/summarise.py"


rule checksum:
    """Two runs with the same settings can be compared by this one file."""
    input:
        variants=rules.filter_variants.output.variants,
        plot=rules.plot.output[0],
        data=rules.summarise.output.data,
        text=rules.summarise.output.text,
    output:
        "results/checksums.sha256",
    log:
        "logs/checksum.log",
    shell:
        "sha256sum {input} > {output} 2> {log}"
