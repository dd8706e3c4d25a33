"""The directory of a job: staging the workflow, locking, publishing outputs."""
