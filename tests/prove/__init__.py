"""Proves that no part that dies leaves anything wrong: every fault at random moments, under load."""
