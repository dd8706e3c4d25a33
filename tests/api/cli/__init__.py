"""`api/cli`."""
