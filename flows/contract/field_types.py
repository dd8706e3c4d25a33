"""Types of fields that several models of a job's spec use."""

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flows.contract.control_characters import one_line

LARGEST_NUMBER = 2**63
"""PostgreSQL stores 1e44 as an integer, and Prefect can't send integers of more than 64 bits: it would
fail to return the job, and every list of jobs that includes it.
"""


class Strict(BaseModel):
    """A model that rejects unknown fields and doesn't change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def relative_path(value: str) -> str:
    """`value`, if it is a path inside the directory that it is relative to. Raises `ValueError`."""
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or value in ("", ".") or "\0" in value:
        raise ValueError("must be a relative path inside the workflow's directory, without '..'")
    return value


OneLine = AfterValidator(one_line)
"""For texts that lists, logs and terminals show."""

PublishedPath = Annotated[str, AfterValidator(relative_path), Field(max_length=1024)]
"""A path inside the directory that it is relative to, with any name that a rule has given a file."""

RelativePath = Annotated[PublishedPath, OneLine]
"""A path inside the directory that it is relative to."""


def _not_an_option(value: str) -> str:
    if value.startswith("-"):
        raise ValueError("a target is a rule or a file; it can't start with '-'")
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$", max_length=200)]
"""The name of a rule, a resource, a group or a variable."""

Target = Annotated[str, AfterValidator(_not_an_option), OneLine, Field(min_length=1, max_length=4096)]
"""A rule or a file."""

Amount = Annotated[int, Field(ge=0, lt=LARGEST_NUMBER)]
