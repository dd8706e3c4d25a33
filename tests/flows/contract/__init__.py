"""`flows/contract`."""
