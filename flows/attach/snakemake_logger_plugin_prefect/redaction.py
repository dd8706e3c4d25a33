"""Keeps secrets that this process knows out of everything that goes to Prefect."""

import os
from collections.abc import Iterable

MASK = "***"
_SHORTEST = 6
_CREDENTIALS = ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")


class Redaction:
    """Replaces the values of environment variables: Prefect's credentials, and those that a workflow names.

    A workflow names the variables that its rules need with the directive `envvars`.
    """

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()
        self.hide(_CREDENTIALS)

    def hide(self, variables: Iterable[str]) -> None:
        """Hide the values of these variables, too. Shorter ones would hide ordinary words."""
        found = {value for name in variables if len(value := os.environ.get(name, "")) >= _SHORTEST}
        self._values = tuple(sorted(found | set(self._values), key=len, reverse=True))

    def text(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, MASK)
        return text
