"""Stacks compose constructs from the settings and grant rights. What changes together is one stack."""
