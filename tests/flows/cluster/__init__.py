"""Rule jobs on real clusters: SLURM, and any cluster that has commands to submit and cancel."""
