"""The deployment to AWS: settings, one construct for each concern, and stacks that compose them."""
