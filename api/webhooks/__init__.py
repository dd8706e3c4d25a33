"""The end of a job, told to who asked for it."""
