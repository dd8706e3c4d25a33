"""`api/prefect`."""
