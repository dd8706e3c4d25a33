"""A Python environment with Snakemake, and the record of its packages."""

import importlib.metadata
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from flows.contract.environments import EnvironmentRecord


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment that is ready to be used."""

    python: Path
    """Its interpreter."""
    runtime: Path
    """A directory for `sys.path` that contains only our code for Snakemake's process."""
    record: EnvironmentRecord

    @property
    def has_logger_plugins(self) -> bool:
        return Version(self.record.snakemake) >= Version("9")

    @classmethod
    def of_this_process(cls) -> "Environment":
        """The environment of this process, if it has Snakemake; for the tests of the plugins."""
        packages = (f"snakemake=={importlib.metadata.version('snakemake')}",)
        record = EnvironmentRecord(digest="this", python=platform.python_version(), packages=packages)
        return cls(Path(sys.executable), Path(__file__).parents[2], record)
