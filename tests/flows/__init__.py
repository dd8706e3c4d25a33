"""What runs on the worker, room by room; nothing here needs a Prefect server."""
