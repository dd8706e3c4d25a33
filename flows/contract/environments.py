"""Which Python environments jobs may name, and what the operator decides about them.

An environment is declared in `prefect.yaml`, below `definitions`:

    environments:
      rnaseq:
        python: "3.12"
        packages: ["snakemake ~= 9.27", "pandas >= 2", "pysam"]

`default` is there without a declaration; one of that name replaces it.
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
"""By `tests/flows/environments/test_versions.py`; the newest is that of the default environment."""

_NEWEST = "snakemake ~= 9.27"


class NamedEnvironment(BaseModel):
    """A Python environment for workflows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: str | None = Field(
        default=None,
        pattern=r"^3\.\d{1,2}(\.\d{1,2})?$",
        description="The version of Python; the service's own when absent.",
    )
    packages: tuple[str, ...] = Field(
        min_length=1, description="Requirements, as pip takes them. Without `snakemake`, the newest is added."
    )


class EnvironmentRecord(BaseModel):
    """What an environment holds: enough to make it again."""

    model_config = ConfigDict(frozen=True)

    digest: str
    """Names the directory that it was made in."""
    python: str
    packages: tuple[str, ...]
    """Every package, as `name==version`."""

    @property
    def snakemake(self) -> str:
        """The version of Snakemake in it."""
        return next(each.partition("==")[2] for each in self.packages if each.startswith("snakemake=="))


BUILT_IN = NamedEnvironment(
    packages=(
        _NEWEST,
        # What the bioconda package `snakemake` brings beyond PyPI's, so that authors take it for granted.
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
    """There is no environment of this name."""


class EnvironmentSettings(BaseSettings):
    """What an operator can set of the environments that workflows run in."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    environments_directory: Path | None = Field(
        default=None, description="Where environments are made; `environments` below JOBS_HOME when absent."
    )
    prefect_file: Path = Field(
        default=Path(__file__).parents[2] / "prefect.yaml", description="Declares the environments."
    )
    job_packages: bool = Field(
        default=True, description="Whether a job may name packages of its own for its environment."
    )
    job_package_builds: bool = Field(
        default=True,
        description="Whether a job's own packages may be built from source; only wheels are taken otherwise, "
        "and Snakemake's own `connection-pool` has none.",
    )
    python_downloads: bool = Field(
        default=False, description="Whether a Python that is not installed may be downloaded by uv."
    )
    environments_keep_days: float = Field(
        default=30, gt=0, le=36_500, description="Environments that no job has used for longer are removed."
    )

    @cached_property
    def environments(self) -> Mapping[str, NamedEnvironment]:
        """By name. Raises `ValueError` where one is declared wrongly."""
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
            raise NotDeclared(f"there is no environment '{name}'; there are: {known}") from None


class SoftwareSettings(BaseSettings):
    """What an operator can set of the software that rules declare."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    software_methods: Annotated[tuple[SoftwareMethod, ...], NoDecode] = Field(
        default=tuple(SoftwareMethod),
        description="How jobs may have the software of their rules deployed, separated by ','.",
    )
    software_directory: Path | None = Field(
        default=None,
        description="Where conda environments and container images are kept; `software` below JOBS_HOME "
        "when absent.",
    )
    software_keep_days: float = Field(
        default=90,
        gt=0,
        le=36_500,
        description="Conda environments that no job has used for longer may be removed.",
    )
    conda_directory: Path | None = Field(
        default=None,
        description="The `bin` of the conda that makes environments; the one on PATH when absent.",
    )
    apptainer_args: str = Field(default="", description="Further arguments of `apptainer exec`.")
    modules_init: Path | None = Field(
        default=None,
        description="What makes `module` known to bash, such as /usr/share/modules/init/bash.",
    )
    wrapper_prefix: str | None = Field(
        default=None,
        description="Where `wrapper:` directives are looked up, a `file:` or `https:` address that ends "
        "in '/'; Snakemake's own repository of wrappers when absent.",
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
    """`packages`, and the newest Snakemake if none of them is Snakemake."""
    names = {canonicalize_name(Requirement(package).name) for package in packages}
    return packages if "snakemake" in names else (*packages, _NEWEST)


def of_snakemake(version: str) -> EnvironmentSpec:
    """The default environment with another version of Snakemake."""
    others = (package for package in BUILT_IN.packages if package != _NEWEST)
    return EnvironmentSpec(packages=(f"snakemake == {version}", *others))


def refusal(spec: EnvironmentSpec | None, settings: EnvironmentSettings) -> str | None:
    """Why a job may not have this environment, as far as that is known before it runs."""
    if spec is None:
        return None
    if spec.name is not None:
        try:
            settings.named(spec.name)
        except NotDeclared as error:
            return str(error)
    elif not settings.job_packages:
        return "this service takes named environments only: " + ", ".join(sorted(settings.environments))
    return None
