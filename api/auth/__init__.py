"""Authentication and authorization: tokens, their callers, and the middleware in front of all routes."""
