"""Code that runs in Snakemake's own process: the only package that imports Snakemake."""
