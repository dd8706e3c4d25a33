"""For operators: health, metrics, logs, traces, and the removal of old jobs."""
