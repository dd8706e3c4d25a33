"""What the facade and the flow must agree on: the only room of `flows` that `api` may enter."""
