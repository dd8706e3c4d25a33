"""Where jobs are started, and where those that lost their process get a final state."""
