"""A real exchange with every operation: `python -m tests.exchanges` writes api/EXCHANGES.md."""
