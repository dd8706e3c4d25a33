"""Start with `fundamentals`: it reads as a tutorial."""
