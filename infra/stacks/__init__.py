"""Stacks compose constructs by the settings, and grant; what changes together is deployed together."""
