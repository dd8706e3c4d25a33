"""What the documentation is made of, and whether it is true."""
