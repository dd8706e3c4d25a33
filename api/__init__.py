"""The front door: jobs over HTTP. Stateless; Prefect is its memory."""
