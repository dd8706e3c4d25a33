"""`api/events`."""
