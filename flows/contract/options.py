"""The options of Snakemake that a job can set.

They have Snakemake's names, with underscores. Without a value, an option is not passed: then the
workflow's profile or Snakemake's own default applies.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from flows.contract.field_types import Amount, Name, OneLine, RelativePath, Strict, Target

DEFAULT_WORKFLOW_PROFILE = "default"


class RerunTrigger(StrEnum):
    """A change that makes Snakemake run a rule job again (`--rerun-triggers`)."""

    CODE = "code"
    INPUT = "input"
    MTIME = "mtime"
    PARAMS = "params"
    SOFTWARE_ENV = "software-env"


_Value = Annotated[str, OneLine, Field(min_length=1, max_length=1000, pattern=r"^[^\x00\n]*$")]
ResourceValue = Amount | _Value
"""A number, or an expression such as `attempt * 1000` or `2GB`."""

_Rules = dict[Name, Annotated[int, Field(ge=1, le=100_000)]]
_Targets = Annotated[tuple[Target, ...], Field(max_length=1000)]


class Options(Strict):
    """The options of Snakemake that a job can set: a typed allow-list, no raw command line."""

    keep_going: bool | None = Field(
        default=None, description="Continue with independent rule jobs after one has failed."
    )
    retries: int | None = Field(
        default=None, ge=0, le=20, description="How often to retry a failing rule job that sets no `retries`."
    )
    forceall: bool | None = Field(
        default=None, description="Run every rule job, even if its outputs are up to date."
    )
    force: bool | None = Field(
        default=None, description="Run the rule jobs of the targets, even if their outputs are up to date."
    )
    forcerun: _Targets | None = Field(
        default=None, description="Rules or files to run or make again, with everything that depends on them."
    )
    until: _Targets | None = Field(default=None, description="Run the workflow up to these rules or files.")
    omit_from: _Targets | None = Field(
        default=None, description="Leave out these rules or files, and everything that depends on them."
    )
    prioritize: _Targets | None = Field(default=None, description="Targets to make first.")
    allowed_rules: Annotated[tuple[Name, ...], Field(max_length=1000)] | None = Field(
        default=None, description="Use only these rules."
    )
    batch: Annotated[str, Field(pattern=r"^\w+=\d{1,9}/\d{1,9}$")] | None = Field(
        default=None,
        description="Make only one batch of the inputs of a rule, as `RULE=BATCH/BATCHES`.",
        examples=["all=1/3"],
    )
    rerun_triggers: tuple[RerunTrigger, ...] | None = Field(
        default=None, min_length=1, description="Which changes make a rule job run again; all when absent."
    )
    rerun_incomplete: bool = Field(
        default=True,
        description="Make outputs again that an interrupted run has left incomplete. Otherwise they are an "
        "error.",
    )
    keep_incomplete: bool | None = Field(
        default=None, description="Keep the incomplete outputs of failed rule jobs."
    )
    notemp: bool | None = Field(default=None, description="Keep outputs that are marked `temp`.")
    touch: bool | None = Field(
        default=None, description="Mark existing outputs as up to date instead of making them."
    )
    latency_wait: int | None = Field(
        default=None,
        ge=0,
        le=3600,
        description="Seconds to wait for outputs that are missing after a command has ended; 5 when absent.",
    )
    max_threads: int | None = Field(
        default=None, ge=1, le=1024, description="The most threads that one rule job may use."
    )
    set_threads: _Rules | None = Field(
        default=None, description="Threads by rule.", examples=[{"map_reads": 8}]
    )
    set_resources: dict[Name, dict[Name, ResourceValue]] | None = Field(
        default=None,
        description="Resources by rule.",
        examples=[{"map_reads": {"mem_mb": 8000, "runtime": "2h"}}],
    )
    default_resources: dict[Name, ResourceValue] | None = Field(
        default=None, description="Resources of rules that don't set them.", examples=[{"mem_mb": 1000}]
    )
    set_scatter: _Rules | None = Field(default=None, description="Number of items by scatter process.")
    groups: dict[Name, Name] | None = Field(default=None, description="Group by rule.")
    group_components: _Rules | None = Field(
        default=None, description="How many connected parts of a group run together, by group."
    )
    shadow_prefix: RelativePath | None = Field(
        default=None, description="The directory of shadow directories, in the working directory."
    )
    envvars: Annotated[tuple[Name, ...], Field(max_length=1000)] | None = Field(
        default=None, description="Environment variables that rule jobs on other machines need."
    )
    configfiles: tuple[RelativePath, ...] | None = Field(
        default=None,
        max_length=100,
        description="Configuration files, in the workflow's directory. Later ones override earlier ones, and "
        "the job's `config` overrides all.",
        examples=[["config/site.yaml"]],
    )
    profile: Annotated[tuple[RelativePath, ...], Field(max_length=10)] | None = Field(
        default=None,
        description="Profiles: names that the operator offers, or directories or files of the workflow. "
        "Later ones override earlier ones.",
        examples=[["profiles/cluster"]],
    )
    workflow_profile: RelativePath | None = Field(
        default=DEFAULT_WORKFLOW_PROFILE,
        description="The workflow's own profile: a name below its `profiles`, a directory or a file. "
        "`null` uses none.",
    )
    report: bool = Field(
        default=False,
        description="Create Snakemake's HTML report when the workflow has ended, as an output of the job.",
    )
    report_stylesheet: RelativePath | None = Field(
        default=None, description="With `report`: a CSS file in the workflow's directory."
    )
    cache: bool | Annotated[tuple[Name, ...], Field(max_length=1000)] = Field(
        default=False,
        description="Share the outputs of rules with other jobs: reuse those of earlier jobs, and keep new "
        "ones for later jobs. `true` takes the rules that are marked `cache: True`; a list adds others.",
    )
