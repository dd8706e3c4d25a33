"""What offers the service: the work pool, the reconciler, the image."""
