"""Who may: tokens, their callers, the gate before the routes."""
