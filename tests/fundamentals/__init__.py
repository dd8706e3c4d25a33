"""A tutorial: read the files in their order."""
