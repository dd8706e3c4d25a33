"""GA4GH WES 1.1.0: a second translation over the same jobs."""
