"""`flows/environments`."""
