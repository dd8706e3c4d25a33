"""`api/web`."""
