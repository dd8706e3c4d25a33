rule map_reads:
    input:
        reference=rules.simulate_genome.output.reference,
        first=rules.simulate_reads.output.first,
        second=rules.simulate_reads.output.second,
    output:
        temp("results/mapped/{sample}.sam"),
    log:
        "logs/map_reads/{sample}.log",
    threads: 2
    script:
        "../scripts/map_reads.py"


rule sort_reads:
    input:
        rules.map_reads.output,
    output:
        alignments="results/mapped/{sample}.bam",
        index="results/mapped/{sample}.bam.bai",
    log:
        "logs/sort_reads/{sample}.log",
    threads: 2
    script:
        "../scripts/sort_reads.py"
