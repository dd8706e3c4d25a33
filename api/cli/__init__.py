"""The command line: `prefect-snakemake`, a client of the service like any other."""
