"""Which environment variables a job may set, and which ones of the service a workflow never sees."""

import re
from collections.abc import Collection

JOB_VARIABLES = "SNAKEMAKE_JOB_VARIABLES"
"""Names the variables that a Prefect deployment or run sets (`job_variables`); set by our worker."""

WORKER_NAME = "SNAKEMAKE_JOB_WORKER"
"""The name of the worker that has forked the flow process; set by our worker."""

_HIDDEN_PREFIXES = ("PREFECT_", "JOBS_", "UV_", "SNAKEMAKE_WARM_", "SNAKEMAKE_JOB_")
"""Never visible, because they could contain secrets of the service."""

_VISIBLE = (
    *("PATH", "TMPDIR", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "USER", "LOGNAME", "SHELL"),
    *("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    *("CONDARC", "MODULEPATH", "MODULESHOME", "MODULERCFILE", "LMOD_*"),
)
"""Variables of the worker that every workflow sees. A list of what is hidden would forget some secret."""

_OF_THE_SERVICE = _HIDDEN_PREFIXES
"""Prefixes that a job can't use. It may set AWS_*, for a bucket of its own."""

_SET_BY_THE_SERVICE = frozenset(
    {
        "BASH_ENV",
        "CONDA_ALWAYS_COPY",
        "CONDA_PKGS_DIRS",
        "HOME",
        "LD_PRELOAD",
        "PATH",
        "PYTHONPATH",
        "PYTHONUNBUFFERED",
        "SNAKEMAKE_OUTPUT_CACHE",
        "SNAKEMAKE_PROFILE",
        "XDG_CACHE_HOME",
    }
)


def is_visible(name: str, more: Collection[str]) -> bool:
    """Whether a workflow sees this variable of the worker; `more` are names, or beginnings with `*`."""
    if name.startswith(_HIDDEN_PREFIXES):
        return False
    return any(
        name.startswith(each[:-1]) if each.endswith("*") else name == each for each in (*_VISIBLE, *more)
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


_OF_A_PROCESS = ("DYLD_", "LD_", "NETRC", "OPENSSL_", "OTEL_", "PYTHON", "REQUESTS_", "CURL_", "SSL")
"""Prefixes of variables that decide what a program loads, whom it trusts, and where it reports to."""


def is_settable_by_run(name: str) -> bool:
    """Whether a flow run's own job variables may set it for the flow process, which is outside the room."""
    if name in _SET_BY_THE_SERVICE or name.lower().endswith("_proxy"):
        return False
    return not name.upper().startswith((*_OF_THE_SERVICE, *_OF_A_PROCESS))
