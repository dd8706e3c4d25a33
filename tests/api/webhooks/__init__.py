"""`api/webhooks`."""
