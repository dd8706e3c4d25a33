rule simulate_genome:
    """A random reference, and the variants that each sample really carries."""
    output:
        reference="results/genome/reference.fa",
        reference_index="results/genome/reference.fa.fai",
        truth="results/genome/truth.vcf.gz",
        truth_index="results/genome/truth.vcf.gz.tbi",
    log:
        "logs/simulate_genome.log",
    params:
        samples=SAMPLES,
        chromosomes=CHROMOSOMES,
        reference_length=config["reference_length"],
        repeats=config["repeats"],
        variants=config["variants"],
        seed=config["seed"],
    script:
        "../scripts/simulate_genome.py"


rule simulate_reads:
    """Paired reads with sequencing errors, drawn from both haplotypes of one sample."""
    input:
        reference=rules.simulate_genome.output.reference,
        truth=rules.simulate_genome.output.truth,
    output:
        first="results/reads/{sample}_R1.fastq.gz",
        second="results/reads/{sample}_R2.fastq.gz",
    log:
        "logs/simulate_reads/{sample}.log",
    params:
        depth=config["depth"],
        error_rate=config["error_rate"],
        seed=config["seed"],
    script:
        "../scripts/simulate_reads.py"
