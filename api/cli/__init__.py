"""The command line `prefect-snakemake`: a client of the REST API."""
