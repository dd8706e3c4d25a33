"""Runs uv, which resolves and installs packages, and turns its errors into one sentence.

EnvironmentFailure   an environment can't be created; who can fix it, and how
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from uv import find_uv_bin

from flows.contract.isolation import IsolationSettings
from flows.contract.spec import ErrorKind
from flows.environments.variables import visible_variables

HEARTBEAT_SECONDS = 15.0
_LOOK_SECONDS = 0.05
_SHOWN_LINES = 12
_FOR_PACKAGES = (
    *("HOME", "XDG_*", "NETRC", "CC", "CXX", "CFLAGS", "LDFLAGS"),
    *("PYC_INVALIDATION_MODE", "SOURCE_DATE_EPOCH"),
)
"""Variables that uv and builds of packages see, beside those that workflows see and uv's own."""

Report = Callable[[str], None]
"""Adds a line to the job's log."""
IsCancelled = Callable[[], bool]

_OUT_OF_REACH = re.compile(
    r"error sending request|dns error|failed to fetch|connection refused|tcp connect|timed out|"
    r"network connectivity is disabled|could not connect",
    re.IGNORECASE,
)
_NO_PYTHON = re.compile(r"No interpreter found|No download found|Failed to inspect Python", re.IGNORECASE)


class EnvironmentFailure(Exception):
    """An environment could not be created."""

    def __init__(self, message: str, resolution: str, kind: ErrorKind = ErrorKind.WORKFLOW) -> None:
        super().__init__(message)
        self.resolution = resolution
        self.kind = kind


class Cancelled(Exception):
    """The job was cancelled meanwhile."""


class Uv:
    """uv with the service's own cache."""

    def __init__(
        self, cache: Path, report: Report, is_cancelled: IsCancelled, *, python_downloads: bool
    ) -> None:
        self._cache = cache
        self._report = report
        self._is_cancelled = is_cancelled
        self._environment = {
            # The operator can set variables of uv (`UV_INDEX`, `UV_DEFAULT_INDEX`, …).
            "UV_CACHE_DIR": str(cache),
            **{name: value for name, value in os.environ.items() if name.startswith("UV_")},
            # A build runs code of the job's packages, which must not see the service's secrets either.
            **visible_variables((*_FOR_PACKAGES, *IsolationSettings().visible_variables)),
            "UV_PYTHON_DOWNLOADS": "automatic" if python_downloads else "never",
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
        }

    def run(self, *arguments: str, doing: str) -> str:
        """Run uv; its output. Raises `EnvironmentFailure`, and `Cancelled` soon after a cancellation."""
        with subprocess.Popen(
            [find_uv_bin(), *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            begun = time.monotonic()
            next_beat = begun + HEARTBEAT_SECONDS
            while True:
                try:
                    output, errors = process.communicate(timeout=_LOOK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    if self._is_cancelled():
                        process.kill()
                        process.wait()
                        raise Cancelled from None
                    if time.monotonic() >= next_beat:
                        next_beat += HEARTBEAT_SECONDS
                        self._report(f"{doing} ({time.monotonic() - begun:.0f} s) …")
        if process.returncode:
            raise _failure(errors.replace(f"{self._cache}/", ""), arguments)
        return output


def _failure(errors: str, arguments: Sequence[str]) -> EnvironmentFailure:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    text = " ".join(line.lstrip("×╰─▶│├ ") for line in lines[:_SHOWN_LINES]) or "uv gave no reason"
    text = text.removeprefix("error: ").replace(" cause: ", ": ")
    if _NO_PYTHON.search(text):
        return EnvironmentFailure(
            f"this Python is not installed where the job runs: {text}",
            "Set `environment.python` to another version, or ask the operator to install it "
            "(or to set JOBS_PYTHON_DOWNLOADS=true).",
        )
    if _OUT_OF_REACH.search(text):
        return EnvironmentFailure(
            f"the package index can't be reached: {text}",
            "Resume the job later. The operator sets another index with UV_DEFAULT_INDEX.",
            ErrorKind.SYSTEM,
        )
    if "no-build" in " ".join(arguments) and ("build" in text.lower() or "no usable wheels" in text.lower()):
        return EnvironmentFailure(
            f"a package has no wheel for this Python: {text}",
            "Request a version that has one, or ask the operator to declare the environment "
            "(or to set JOBS_JOB_PACKAGE_BUILDS=true).",
        )
    return EnvironmentFailure(
        f"the packages can't be installed together: {text}",
        "Correct the packages of `environment`, and submit again.",
    )
