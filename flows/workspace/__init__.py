"""A job's directory."""
