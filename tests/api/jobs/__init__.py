"""`api/jobs`."""
