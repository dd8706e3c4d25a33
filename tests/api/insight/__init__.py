"""`api/insight`."""
