"""The graph of a job, and its research object."""
