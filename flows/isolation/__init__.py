"""Decides what a job finds around it; `flows.snakemake_process.room` makes it."""
