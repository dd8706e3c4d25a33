"""One concern a file: takes values, exposes resources. What may reach what is granted by the stacks."""
