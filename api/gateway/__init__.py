"""What the task of a job may ask of Prefect and of the storage: what concerns this job, and nothing else."""
