"""The facade: jobs over HTTP. It is stateless; Prefect stores everything."""
