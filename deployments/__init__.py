"""Where the flow is offered: the local stack, and the demo that shows it."""
