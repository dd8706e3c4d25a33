"""The whole service, from outside: what users do to it, and what happens to it."""
