"""The Python environments that jobs can use, and the operator's settings for them.

An environment is declared in `prefect.yaml`, below `definitions`:

    environments:
      rnaseq:
        python: "3.12"
        packages: ["snakemake ~= 9.27", "pandas >= 2", "pysam"]

`default` exists without a declaration; declare one of that name to replace it.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from flows.contract.spec import EnvironmentSpec, SoftwareMethod

DEFAULT_ENVIRONMENT = "default"
SUPPORTED_SNAKEMAKE = SpecifierSet(">= 8.30, < 10")
TESTED_SNAKEMAKE = ("8.30.0", "9.0.0", "9.14.0", "9.27.1")
"""Tested by `tests/flows/environments/test_versions.py`; the default environment has the newest."""

_NEWEST = "snakemake ~= 9.27"


class NamedEnvironment(BaseModel):
    """A Python environment for workflows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: str | None = Field(
        default=None,
        pattern=r"^3\.\d{1,2}(\.\d{1,2})?$",
        description="The version of Python; the same as the service's own when absent.",
    )
    packages: tuple[str, ...] = Field(
        min_length=1,
        description="Requirements, in pip's syntax. The newest Snakemake is added if they lack `snakemake`.",
    )


class EnvironmentRecord(BaseModel):
    """What an environment contains: enough to create it again."""

    model_config = ConfigDict(frozen=True)

    digest: str
    """The name of its directory."""
    python: str
    packages: tuple[str, ...]
    """Every package, as `name==version`."""

    @property
    def snakemake(self) -> str:
        """The version of its Snakemake."""
        return next(each.partition("==")[2] for each in self.packages if each.startswith("snakemake=="))

    def has(self, package: str) -> bool:
        """Whether the environment has this package."""
        return any(each.partition("==")[0] == package for each in self.packages)


BUILT_IN = NamedEnvironment(
    packages=(
        _NEWEST,
        # The bioconda package `snakemake` includes these and PyPI's does not, so authors rely on them.
        "eido",
        "pandas",
        "peppy",
        "pygments",
        "slack-sdk",
        "snakemake-storage-plugin-fs",
        "snakemake-storage-plugin-http",
        "snakemake-storage-plugin-s3",
    )
)


class NotDeclared(LookupError):
    """No environment of this name is declared."""


class EnvironmentSettings(BaseSettings):
    """The operator's settings for the environments that workflows run in."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    environments_directory: Path | None = Field(
        default=None,
        description="The directory of the environments; `environments` below JOBS_HOME when absent.",
    )
    prefect_file: Path = Field(
        default=Path(__file__).parents[2] / "prefect.yaml",
        description="The file that declares environments and executors.",
    )
    job_packages: bool = Field(
        default=True, description="Whether a job may list its own packages instead of a named environment."
    )
    job_package_builds: bool = Field(
        default=True,
        description="Whether a job's own packages may be built from source. If not, only wheels are used; "
        "Snakemake's dependency `connection-pool` has none.",
    )
    python_downloads: bool = Field(
        default=False, description="Whether uv may download versions of Python that are not installed."
    )
    environments_keep_days: float = Field(
        default=30, gt=0, le=36_500, description="Days after which an unused environment may be removed."
    )

    @cached_property
    def environments(self) -> Mapping[str, NamedEnvironment]:
        """By name. Raises `ValueError` if a declaration is invalid."""
        content: dict[str, Any] = {}
        if self.prefect_file.is_file():
            content = yaml.safe_load(self.prefect_file.read_text()) or {}
        declared = content.get("definitions", {}).get("environments") or {}
        return {DEFAULT_ENVIRONMENT: BUILT_IN} | {
            name: NamedEnvironment.model_validate(environment) for name, environment in declared.items()
        }

    def named(self, name: str) -> NamedEnvironment:
        """Raises `NotDeclared`."""
        try:
            return self.environments[name]
        except KeyError:
            known = ", ".join(sorted(self.environments))
            raise NotDeclared(f"there is no environment '{name}'; available: {known}") from None


class SoftwareSettings(BaseSettings):
    """The operator's settings for the software that rules declare."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    software_methods: Annotated[tuple[SoftwareMethod, ...], NoDecode] = Field(
        default=tuple(SoftwareMethod),
        description="Software deployment methods that jobs may use, separated by ','.",
    )
    software_directory: Path | None = Field(
        default=None,
        description="The directory of conda environments and container images; `software` below JOBS_HOME "
        "when absent.",
    )
    software_keep_days: float = Field(
        default=90,
        gt=0,
        le=36_500,
        description="Days after which an unused conda environment may be removed.",
    )
    conda_directory: Path | None = Field(
        default=None,
        description="The `bin` directory of the conda to use; the conda on PATH when absent.",
    )
    apptainer_args: str = Field(default="", description="Additional arguments for `apptainer exec`.")
    modules_init: Path | None = Field(
        default=None,
        description="The script that defines `module` for bash, such as /usr/share/modules/init/bash.",
    )
    wrapper_prefix: str | None = Field(
        default=None,
        description="The source of `wrapper:` directives, a `file:` or `https:` address that ends in '/'; "
        "Snakemake's own repository of wrappers when absent.",
    )

    @field_validator("software_methods", mode="before")
    @classmethod
    def _split_by_commas(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )


def with_snakemake(packages: tuple[str, ...]) -> tuple[str, ...]:
    """`packages`, with the newest Snakemake added if none of them is Snakemake."""
    names = {canonicalize_name(Requirement(package).name) for package in packages}
    return packages if "snakemake" in names else (*packages, _NEWEST)


def of_snakemake(version: str) -> EnvironmentSpec:
    """The default environment with another version of Snakemake."""
    others = (package for package in BUILT_IN.packages if package != _NEWEST)
    return EnvironmentSpec(packages=(f"snakemake == {version}", *others))


def refusal(spec: EnvironmentSpec | None, settings: EnvironmentSettings) -> str | None:
    """Why a job can't have this environment, as far as is known before it runs; None if it can."""
    if spec is None:
        return None
    if spec.name is not None:
        try:
            settings.named(spec.name)
        except NotDeclared as error:
            return str(error)
    elif not settings.job_packages:
        return "this service allows only named environments: " + ", ".join(sorted(settings.environments))
    return None
