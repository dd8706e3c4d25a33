"""`api/auth`."""
