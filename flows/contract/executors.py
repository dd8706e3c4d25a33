"""On which cluster the rule jobs of a group run: the operator's declaration, in `prefect.yaml`.

Below `definitions`, by group:

    executors:
      genomics:
        executor: slurm
        settings: {requeue: true}
        default_resources: {slurm_account: lab, slurm_partition: short, mem_mb: 2000, runtime: 60}

A group without a declaration runs its rule jobs on the worker's machine.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.contract.field_types import Name
from flows.contract.options import Options, ResourceValue
from flows.contract.sources import DefaultStorage

SLURM = "slurm"
AWS_BATCH = "aws-batch"

RULE_JOB_TAG = "prefect-snakemake-job"
"""On each job of AWS Batch that has a job definition of the operator: the id of its job of the service."""

_JOB_ID = "{job_id}"

_OPERATOR_RESOURCES: Mapping[str, frozenset[str]] = {
    SLURM: frozenset({"slurm_extra", "slurm_account", "qos", "reservation", "cluster", "clusters"}),
}
"""Resources that decide who pays, or that are options of the cluster's own commands."""

_OF_THE_SERVICE: Mapping[str, frozenset[str]] = {
    # The first is how what is left of a job is found; a job array would run its first task each time.
    SLURM: frozenset({"jobname_prefix", "array_jobs", "array_limit", "logdir", "efficiency_report_path"}),
}
"""Settings of plugins that the service sets itself, or that its record of rule jobs excludes."""

_LOCAL = frozenset({"local", "dryrun", "touch", "prefect"})


class ClusterExecutor(BaseModel):
    """A Snakemake executor plugin, and how the jobs of a group use it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    executor: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=50, description="The name of the executor plugin."
    )
    package: str | None = Field(
        default=None,
        description="The requirement that installs the plugin; `snakemake-executor-plugin-NAME` when absent.",
    )
    settings: dict[Name, str | int | float | bool] = Field(
        default_factory=dict,
        description="Settings of the plugin: its options without `--NAME-`, with underscores.",
    )
    default_resources: dict[Name, ResourceValue] = Field(
        default_factory=dict, description="Resources of rules that don't set them, such as the partition."
    )
    operator_resources: tuple[Name, ...] | None = Field(
        default=None,
        description="Resources that no job and no workflow may set. With `slurm`, when absent: "
        + ", ".join(sorted(_OPERATOR_RESOURCES[SLURM])),
    )
    jobs: int = Field(default=100, ge=1, le=100_000, description="Rule jobs that one job submits at once.")
    cores: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="The most cores of one submission, as its nodes have them; groups of rule jobs take no "
        "more. No limit when absent.",
    )
    latency_wait: int = Field(
        default=30, ge=0, le=3600, description="Seconds to wait for outputs that the file system shows late."
    )
    least_memory_mb: int = Field(
        default=300, ge=0, description="The least memory to request: Snakemake itself runs on the node, too."
    )
    cancel_seconds: float = Field(
        default=60, gt=0, le=3600, description="How long the cluster may take to end the jobs of a job."
    )
    default_storage: DefaultStorage | None = Field(
        default=None,
        description="The storage for clusters whose nodes don't share the worker's directories. "
        "`{job_id}` in its `prefix` stands for the job, or the first one of those that resume each other.",
    )
    container_image: str | None = Field(
        default=None, max_length=1000, description="The image that rule jobs run in, if the plugin uses one."
    )
    job_definition: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][\w-]{0,127}(:\d+)?$",
        description="With `aws-batch`: the job definition of all rule jobs, on Fargate. Image and roles are "
        "its own then, and nothing is registered. When absent, the plugin registers one for each.",
    )

    @field_validator("executor")
    @classmethod
    def _is_remote(cls, value: str) -> str:
        if value in _LOCAL:
            raise ValueError(f"'{value}' runs on the worker's machine; leave out the group instead")
        return value

    @model_validator(mode="after")
    def _has_definitions(self) -> Self:
        if self.job_definition is not None and self.executor != AWS_BATCH:
            raise ValueError(f"only '{AWS_BATCH}' has a job_definition")
        return self

    @property
    def requirement(self) -> str:
        return self.package or f"snakemake-executor-plugin-{self.executor}"

    def for_job(self, first_job: UUID) -> Self:
        """With the storage of one job; a job that resumes others has that of the first of them."""
        if self.default_storage is None:
            return self
        prefix = self.default_storage.prefix.replace(_JOB_ID, str(first_job))
        return self.model_copy(
            update={"default_storage": self.default_storage.model_copy(update={"prefix": prefix})}
        )

    def resources_of_operator(self) -> frozenset[str]:
        if self.operator_resources is not None:
            return frozenset(self.operator_resources)
        return _OPERATOR_RESOURCES.get(self.executor, frozenset())

    def refused_settings(self) -> list[str]:
        """Names in `settings` that the service sets itself."""
        return sorted(self.settings.keys() & _OF_THE_SERVICE.get(self.executor, frozenset()))

    def refusal(self, options: Options) -> str | None:
        """Why a job can't have these options; None if it can."""
        by_rule = (options.set_resources or {}).values()
        asked = {name for resources in (options.default_resources or {}, *by_rule) for name in resources}
        taken = sorted(asked & self.resources_of_operator())
        if not taken:
            return None
        return f"only the operator sets these resources of {self.executor}: {', '.join(taken)}"


class ExecutorSettings(BaseSettings):
    """The operator's clusters."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    prefect_file: Path = Field(
        default=Path(__file__).parents[2] / "prefect.yaml",
        description="The file that declares environments and executors.",
    )
    executors: dict[str, ClusterExecutor] = Field(
        default={},
        description="Clusters by group, as JSON; they replace those of prefect.yaml. "
        '`{"genomics": {"executor": "slurm", "default_resources": {"slurm_account": "lab"}}}`.',
    )

    @cached_property
    def executors_by_group(self) -> Mapping[str, ClusterExecutor]:
        """Raises `ValueError` if a declaration is invalid."""
        content: dict[str, Any] = {}
        if self.prefect_file.is_file():
            content = yaml.safe_load(self.prefect_file.read_text()) or {}
        declared = content.get("definitions", {}).get("executors") or {}
        of_file = {group: ClusterExecutor.model_validate(fields) for group, fields in declared.items()}
        return of_file | self.executors

    def executor_of(self, group: str) -> ClusterExecutor | None:
        """None if rule jobs of the group run on the worker's machine."""
        return self.executors_by_group.get(group)


class PluginSetting(BaseModel):
    """A setting of an installed executor plugin."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    is_required: bool = False

    def accepts(self, value: object) -> bool:
        match self.type:
            case "bool":
                return isinstance(value, bool)
            case "int":
                return isinstance(value, int) and not isinstance(value, bool)
            case "float":
                return isinstance(value, int | float) and not isinstance(value, bool)
            case _:
                return isinstance(value, str)


def mistakes(executor: ClusterExecutor, known: Iterable[PluginSetting]) -> list[str]:
    """What is wrong with the settings of `executor`, a sentence each; `known` are those of its plugin."""
    settings = {setting.name: setting for setting in known}
    found = [f"'{name}' is set by the service itself" for name in executor.refused_settings()]
    for name, value in executor.settings.items():
        if name not in settings:
            found.append(f"'{name}' is no setting of it; known: {', '.join(sorted(settings))}")
        elif not settings[name].accepts(value):
            found.append(f"'{name}' must be of type {settings[name].type}, not {value!r}")
    found += [
        f"'{name}' is required"
        for name, setting in settings.items()
        if setting.is_required and name not in executor.settings
    ]
    return found
