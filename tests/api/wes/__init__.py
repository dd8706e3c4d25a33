"""`api/wes`."""
