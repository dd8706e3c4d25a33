"""Every read of Prefect, and what its answers mean here."""
