"""Live updates: server-sent events about jobs."""
