"""`/jobs` and `/bundles`."""
