"""What the API and the flow must agree on: the only package of `flows` that `api` may import."""
