"""Which environment variables a job may set, and which ones of the service a workflow never sees."""

HIDDEN_PREFIXES = ("PREFECT_", "JOBS_", "AWS_", "UV_", "SNAKEMAKE_WARM_")
"""Prefixes of variables of the service that could contain its secrets. AWS_: with the service's
credentials, a workflow could read and replace the outputs of others."""

_OF_THE_SERVICE = ("PREFECT_", "JOBS_", "UV_", "SNAKEMAKE_WARM_")
"""Prefixes that a job can't use. It may set AWS_*, for a bucket of its own."""

_SET_BY_THE_SERVICE = frozenset(
    {
        "BASH_ENV",
        "CONDA_ALWAYS_COPY",
        "LD_PRELOAD",
        "PATH",
        "PYTHONPATH",
        "PYTHONUNBUFFERED",
        "SNAKEMAKE_OUTPUT_CACHE",
        "SNAKEMAKE_PROFILE",
        "XDG_CACHE_HOME",
    }
)


def settable(name: str) -> str:
    """`name`, if a job may set this variable. Raises `ValueError`."""
    if name in _SET_BY_THE_SERVICE:
        raise ValueError(f"a job can't set {name}: the service decides about it")
    if name.startswith(_OF_THE_SERVICE):
        prefixes = ", ".join(_OF_THE_SERVICE)
        raise ValueError(f"a job can't set {name}: names with {prefixes} belong to the service")
    return name
