"""What executes a workflow: Snakemake, or a mock of it."""
