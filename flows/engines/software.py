"""How the software that rules declare is deployed: options and variables of Snakemake."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.contract.environments import SoftwareSettings
from flows.contract.spec import SoftwareMethod


@dataclass(frozen=True, slots=True)
class Software:
    """What one job may use. Environments and images are shared by the jobs of its group."""

    settings: SoftwareSettings
    methods: Sequence[SoftwareMethod]
    directory: Path
    """Of the group."""
    only_prepare: bool = False
    """Make it, and run no rule."""

    @classmethod
    def of_group(
        cls, settings: SoftwareSettings, methods: Sequence[SoftwareMethod], home: Path, group: str
    ) -> "Software":
        base = settings.software_directory or home / "software"
        return cls(settings, methods, (base / group).resolve())

    def arguments(self) -> list[str]:
        """Options of `snakemake`; none that a profile could have set better where nothing is asked for."""
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
        """Directories that go on PATH."""
        if SoftwareMethod.CONDA in self.methods and self.settings.conda_directory is not None:
            return [str(self.settings.conda_directory)]
        return []

    def variables(self) -> dict[str, str]:
        """Variables that Snakemake and rules get."""
        # Sources that Snakemake fetches, wrappers and modules among them, are kept for the group.
        variables = {"XDG_CACHE_HOME": str(self.directory / "cache")}
        if SoftwareMethod.CONDA in self.methods:
            # Else a rule that writes into its environment changes conda's cache, by hard links.
            variables["CONDA_ALWAYS_COPY"] = "true"
        if SoftwareMethod.ENV_MODULES in self.methods and self.settings.modules_init is not None:
            variables["BASH_ENV"] = str(self.settings.modules_init)
        return variables
