"""Webhooks: notifications that a job has ended."""
