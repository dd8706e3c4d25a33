"""`api/operation`."""
