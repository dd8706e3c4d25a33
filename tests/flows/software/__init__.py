"""The software that rules declare: conda from a channel of the tests, modules, container images."""
