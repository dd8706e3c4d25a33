"""The flow and its worker: they turn one job into one finished Snakemake execution."""
