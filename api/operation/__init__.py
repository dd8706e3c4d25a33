"""What an operator sees of the service, and has it do by itself."""
