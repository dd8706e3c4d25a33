"""Every request to Prefect, and the translation of its answers."""
