"""Selects the environment variables of the service that a workflow may see."""

import os

_HIDDEN = ("PREFECT_", "JOBS_", "AWS_", "UV_", "SNAKEMAKE_WARM_")
"""Prefixes of variables that could contain secrets of the service. AWS_: with the service's credentials,
a workflow could read and replace the outputs of others."""


def visible_variables() -> dict[str, str]:
    """The variables of this process, without those that could contain secrets of the service."""
    visible = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
    visible.pop("PYTHONPATH", None)  # the service's packages would hide the environment's
    return visible
