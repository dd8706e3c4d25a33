"""Selects the environment variables of the service that a workflow may see."""

import os

from flows.contract.variables import HIDDEN_PREFIXES


def visible_variables() -> dict[str, str]:
    """The variables of this process, without those that could contain secrets of the service."""
    visible = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN_PREFIXES)}
    visible.pop("PYTHONPATH", None)  # the service's packages would hide the environment's
    return visible
