"""Selects the environment variables of the worker that a workflow may see."""

import os
from collections.abc import Collection

from flows.contract.variables import JOB_VARIABLES, is_visible


def visible_variables(more: Collection[str] = ()) -> dict[str, str]:
    """Those that every workflow needs, those of this job alone, and `more`: names, or beginnings with `*`."""
    of_job = os.environ.get(JOB_VARIABLES, "").split(",")
    return {name: value for name, value in os.environ.items() if is_visible(name, (*more, *of_job))}
