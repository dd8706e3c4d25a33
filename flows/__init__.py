"""Runs on the worker: one job in, one finished Snakemake execution out."""
