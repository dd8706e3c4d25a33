"""Exact filters, and pages that neither repeat nor miss."""
