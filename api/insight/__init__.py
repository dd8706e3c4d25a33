"""What people want to see of a job: its graph, and what came of it."""
