"""Which variables of the service a workflow may see."""

import os

_HIDDEN = ("PREFECT_", "JOBS_", "AWS_", "UV_", "SNAKEMAKE_WARM_")
"""What could hold a secret of the service. AWS_: with the service's own credentials, a workflow could
read and replace what others have made."""


def visible_variables() -> dict[str, str]:
    """Those of this process, without any that could hold a secret of the service."""
    visible = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
    visible.pop("PYTHONPATH", None)  # the service's packages would go before the environment's
    return visible
