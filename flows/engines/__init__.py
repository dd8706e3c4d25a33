"""Engines, which execute workflows: Snakemake, or a mock of it."""
