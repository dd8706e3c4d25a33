"""Snakemake's story, recorded in Prefect."""
