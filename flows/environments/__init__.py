"""The Python environments that workflows run in."""
