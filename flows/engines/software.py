"""Options and variables of Snakemake that deploy the software that rules declare."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.contract.environments import SoftwareSettings
from flows.contract.spec import SoftwareMethod


@dataclass(frozen=True, slots=True)
class Software:
    """The software of one job. Jobs of the same group share environments and images."""

    settings: SoftwareSettings
    methods: Sequence[SoftwareMethod]
    directory: Path
    """The cache of the group."""
    only_prepare: bool = False
    """Create the software without running any rule."""

    @classmethod
    def of_group(
        cls, settings: SoftwareSettings, methods: Sequence[SoftwareMethod], home: Path, group: str
    ) -> "Software":
        base = settings.software_directory or home / "software"
        return cls(settings, methods, (base / group).resolve())

    def arguments(self) -> list[str]:
        """Options of `snakemake`. Without methods, those of the workflow's profile are deployed."""
        arguments = [
            f"--conda-prefix={self.directory / 'conda'}",
            f"--apptainer-prefix={self.directory / 'apptainer'}",
        ]
        if self.settings.wrapper_prefix is not None:
            arguments.append(f"--wrapper-prefix={self.settings.wrapper_prefix}")
        if self.settings.apptainer_args:
            arguments.append(f"--apptainer-args={self.settings.apptainer_args}")
        if self.methods:
            arguments += ["--software-deployment-method", *self.methods]
        return [*arguments, "--conda-create-envs-only"] if self.only_prepare else arguments

    def variables(self) -> dict[str, str]:
        """Environment variables for Snakemake and rules, whatever is deployed."""
        # Sources that Snakemake downloads, such as wrappers and modules, are cached per group.
        return {"XDG_CACHE_HOME": str(self.directory / "cache")}

    def method_variables(self, path: str) -> dict[str, dict[str, str]]:
        """The environment variables that each method needs which jobs may use; `path` is PATH without it."""
        variables: dict[str, dict[str, str]] = {method: {} for method in self.settings.software_methods}
        if (conda := variables.get(SoftwareMethod.CONDA)) is not None:
            # Otherwise a rule that writes into its environment changes conda's cache through hard links.
            conda["CONDA_ALWAYS_COPY"] = "true"
            # Conda's own cache is read-only in the room of a job, or lost with its HOME.
            conda["CONDA_PKGS_DIRS"] = str(self.directory / "conda-packages")
            if self.settings.conda_directory is not None:
                conda["PATH"] = _second(str(self.settings.conda_directory), path)
        if (modules := variables.get(SoftwareMethod.ENV_MODULES)) is not None and self.settings.modules_init:
            modules["BASH_ENV"] = str(self.settings.modules_init)
        return variables


def _second(directory: str, path: str) -> str:
    """`path` with `directory` after the first one, which has the `python` that rules expect."""
    first, _, rest = path.partition(os.pathsep)
    return os.pathsep.join((first, directory, rest))
