"""`flows/snakemake_process`."""
