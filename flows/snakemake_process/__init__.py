"""Runs inside Snakemake's own process: the only room that imports Snakemake."""
