"""Links to the documentation: every `resolution` names a section of it."""

TROUBLESHOOTING = "docs/troubleshooting.md"


def with_reference(resolution: str, section: str) -> str:
    """`resolution` with a reference to the documentation.

    `section` is the anchor of a heading of the troubleshooting page: the name of a problem type, of
    an error kind, or of a Snakemake exception in lower case. `tests/house` checks that each exists.
    """
    return f"{resolution} See {TROUBLESHOOTING}#{section}."
