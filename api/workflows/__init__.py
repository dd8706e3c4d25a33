"""`/workflows`: workflows that are registered once, and run by name."""
