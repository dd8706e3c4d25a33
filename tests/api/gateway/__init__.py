"""`api/gateway`."""
