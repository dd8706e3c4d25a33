"""Which environment variables a job may set, and which ones of the service a workflow never sees."""

import re

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


_CREDENTIAL = re.compile(r"(?:^|_)(?:auth|credentials?|passw(?:or)?d|secret|token)(?:_|$)|key$")


def is_credential(setting: str) -> bool:
    """Whether a setting of a storage plugin holds a credential, by its name: plugins don't say it."""
    return _CREDENTIAL.search(setting) is not None


def variable_of_setting(provider: str, setting: str) -> str:
    """The variable from which Snakemake reads a credential of a storage plugin."""
    return f"SNAKEMAKE_STORAGE_{provider}_{setting}".upper().replace("-", "_")


def settable(name: str) -> str:
    """`name`, if a job may set this variable. Raises `ValueError`."""
    if name in _SET_BY_THE_SERVICE:
        raise ValueError(f"a job can't set {name}: the service decides about it")
    if name.startswith(_OF_THE_SERVICE):
        prefixes = ", ".join(_OF_THE_SERVICE)
        raise ValueError(f"a job can't set {name}: names with {prefixes} belong to the service")
    return name
