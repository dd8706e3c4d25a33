"""Deploys the flow: the local stack and its demo, registration, and the reconciler."""
