"""Characters that a terminal or a log acts on instead of showing them."""

import re

_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""C0 and C1, separators of lines and paragraphs, and marks that reverse the order of a line."""

_ANY = re.compile(f"[{_CONTROL}]")
_ANY_BUT_LINES = re.compile(f"(?![\t\n])[{_CONTROL}]")


def one_line(value: str) -> str:
    """`value`, if it is one line that shows all that it holds. Raises `ValueError`."""
    if found := _ANY.search(value):
        raise ValueError(f"must be one line without control characters; it has {found[0]!r}")
    return value


def shown(text: str, *, lines: bool = True) -> str:
    """The text with control characters as escapes such as `\\x1b`. `lines` leaves line breaks and tabs."""
    return (_ANY_BUT_LINES if lines else _ANY).sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
