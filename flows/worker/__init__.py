"""The worker: it starts jobs, and gives a final state to jobs whose process is gone."""
