"""`flows/worker`."""
