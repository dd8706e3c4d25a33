"""`flows/workspace`."""
