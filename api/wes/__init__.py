"""GA4GH WES 1.1.0: a second API for the same jobs."""
