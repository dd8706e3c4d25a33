"""`flows/record`."""
