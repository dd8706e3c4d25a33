"""Where people read on: every `resolution` names its place in the documentation."""

TROUBLESHOOTING = "docs/troubleshooting.md"


def with_reference(resolution: str, section: str) -> str:
    """`resolution`, and where the documentation says more.

    `section` is the anchor of a heading of the troubleshooting page: the name of a problem type, of
    an error kind, or of an exception of Snakemake's in lower case. `tests/house` looks for each.
    """
    return f"{resolution} See {TROUBLESHOOTING}#{section}."
