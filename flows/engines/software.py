"""Options and variables of Snakemake that deploy the software that rules declare."""

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
        """Options of `snakemake`. Without methods, it sets no deployment option, so that profiles can."""
        arguments = []
        if self.settings.wrapper_prefix is not None:
            arguments.append(f"--wrapper-prefix={self.settings.wrapper_prefix}")
        if not self.methods:
            return arguments
        arguments += ["--software-deployment-method", *self.methods]
        if SoftwareMethod.CONDA in self.methods:
            arguments.append(f"--conda-prefix={self.directory / 'conda'}")
        if SoftwareMethod.APPTAINER in self.methods:
            arguments.append(f"--apptainer-prefix={self.directory / 'apptainer'}")
            if self.settings.apptainer_args:
                arguments.append(f"--apptainer-args={self.settings.apptainer_args}")
        return [*arguments, "--conda-create-envs-only"] if self.only_prepare else arguments

    def path(self) -> list[str]:
        """Directories to add to PATH."""
        if SoftwareMethod.CONDA in self.methods and self.settings.conda_directory is not None:
            return [str(self.settings.conda_directory)]
        return []

    def variables(self) -> dict[str, str]:
        """Environment variables for Snakemake and rules."""
        # Sources that Snakemake downloads, such as wrappers and modules, are cached per group.
        variables = {"XDG_CACHE_HOME": str(self.directory / "cache")}
        if SoftwareMethod.CONDA in self.methods:
            # Otherwise a rule that writes into its environment changes conda's cache through hard links.
            variables["CONDA_ALWAYS_COPY"] = "true"
        if SoftwareMethod.ENV_MODULES in self.methods and self.settings.modules_init is not None:
            variables["BASH_ENV"] = str(self.settings.modules_init)
        return variables
