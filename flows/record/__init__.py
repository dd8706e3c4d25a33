"""Records the course of an execution in Prefect."""
