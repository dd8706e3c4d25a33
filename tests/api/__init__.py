"""The facade, without a worker: what it makes of requests, and of what Prefect tells it."""
