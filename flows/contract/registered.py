"""Registered workflows: what a worker finds out about one, and what is stored of each version."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

DESCRIPTION_NAME = "workflow.json"
"""Below the key of the job that describes a workflow."""

_NAME, _VERSION = r"[A-Za-z0-9][\w.-]*", r"[A-Za-z0-9][\w.+-]*"
_NAMED = re.compile(rf"(?P<name>{_NAME})(@(?P<version>{_VERSION}))?")

NAME_PATTERN, VERSION_PATTERN = f"^{_NAME}$", f"^{_VERSION}$"
LONGEST_NAME, LONGEST_VERSION = 100, 50

WorkflowName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=LONGEST_NAME)]
WorkflowVersion = Annotated[str, Field(pattern=VERSION_PATTERN, max_length=LONGEST_VERSION)]

Schema = dict[str, Any]
"""A JSON Schema."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class TableDescription(_Frozen):
    """A table that the workflow reads, such as a sample sheet."""

    path: str = Field(description="Its place in the workflow.")
    schema_file: str = Field(description="The schema of a row, in the workflow.")
    row_schema: Schema = Field(description="The schema of a row.")


class WorkflowDescription(_Frozen):
    """What a workflow says about itself."""

    commit: str | None = Field(default=None, description="The commit of a workflow from a git repository.")
    readme: str = Field(default="", description="The beginning of its README, in Markdown.")
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="The configuration in its configuration files."
    )
    config_schema: Schema = Field(
        default_factory=dict, description="The schema of its configuration (JSON Schema)."
    )
    config_schema_file: str | None = Field(
        default=None, description="The schema's file; derived from the configuration when null."
    )
    tables: tuple[TableDescription, ...] = Field(default=(), description="Tables with a schema of their own.")


class RegisteredVersion(_Frozen):
    """A version of a registered workflow. It never changes, but may be retired."""

    name: WorkflowName
    version: WorkflowVersion
    group: str = Field(description="The group that runs its jobs.")
    registered_at: datetime
    sha256: str = Field(description="Hash of the request that registered it.")
    registered_by: str = Field(description="The name of the token that registered it.")
    retired: bool = Field(default=False, description="Whether new jobs of it are refused.")
    job: dict[str, JsonValue] = Field(
        description="The job spec that jobs of this version begin with: source, environment and defaults."
    )
    description: WorkflowDescription


def named_workflow(text: str) -> dict[str, str] | None:
    """`NAME` or `NAME@VERSION` as the source of a workflow; None for another text."""
    found = _NAMED.fullmatch(text)
    return None if found is None else {key: part for key, part in found.groupdict().items() if part}


def merged(config: Any, update: Any) -> Any:
    """A configuration with an update, key by key, as `snakemake.utils.update_config` merges them."""
    if not isinstance(config, Mapping) or not isinstance(update, Mapping):
        return update
    return {**config, **{key: merged(config.get(key), value) for key, value in update.items()}}
