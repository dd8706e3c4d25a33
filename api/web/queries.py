"""The query parameters of listings.

Unknown parameters are rejected: a filter that is silently ignored would return the wrong jobs.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api.web.schemas import RuleJob
from api.web.statuses import JobStatus, RuleJobStatus
from flows.contract.manifest import FileKind

MAX_LIMIT = 200
"""The most rows that Prefect returns at once (`PREFECT_SERVER_API_DEFAULT_LIMIT`)."""

MAX_CURSOR = 60_000
"""Fits into the request line of common servers and proxies (64 KiB)."""


def _split_at_commas(values: object) -> object:
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [part for value in values for part in str(value).split(",")]
    return values


# PostgreSQL can't store a NUL, and Prefect answers one with a 503 that looks like an outage.
Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


class PageQuery(BaseModel):
    """Selects a page of a listing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=50, ge=1, le=MAX_LIMIT, description="The most items to return.")
    cursor: str | None = Field(
        default=None,
        json_schema_extra={"pattern": "^[A-Za-z0-9_-]*$"},  # documented only: `BadCursor` reports a violation
        description="`next_cursor` of the previous page; leave it out for the first page.",
    )

    def fingerprint(self, *scope: object) -> str:
        """Identifies this listing with its filters and `scope`, such as the job."""
        filters = self.model_dump_json(exclude={"limit", "cursor"})
        return sha256(repr((type(self).__name__, filters, *map(str, scope))).encode()).hexdigest()[:16]


class JobQuery(PageQuery):
    """Filters for jobs. Each matches exactly, and all must match."""

    status: Annotated[tuple[JobStatus, ...], BeforeValidator(_split_at_commas)] = Field(
        default=(),
        description="Jobs with any of these statuses; repeat the parameter or separate them by commas.",
        examples=[["pending,running"]],
    )
    group: Text | None = Field(default=None, description="Jobs of this group.", examples=["default"])
    workflow: Text | None = Field(
        default=None, description="Jobs of this registered workflow.", examples=["rnaseq"]
    )
    tag: tuple[Text, ...] = Field(
        default=(),
        max_length=50,
        description="Jobs with all of these tags, each as `key:value`; repeat the parameter.",
        examples=[["project:x"]],
    )
    name: Text | None = Field(default=None, description="Jobs with this name.", examples=["trio-1"])


class RuleJobQuery(PageQuery):
    """Filters for rule jobs. Each matches exactly, and all must match."""

    status: Annotated[tuple[RuleJobStatus, ...], BeforeValidator(_split_at_commas)] = Field(
        default=(),
        description="Rule jobs with any of these statuses; repeat the parameter or separate them by commas.",
        examples=[["failed"]],
    )
    rule: Text | None = Field(default=None, description="Rule jobs of this rule.", examples=["call"])

    def matches(self, rule_job: RuleJob) -> bool:
        return (not self.status or rule_job.status in self.status) and self.rule in (None, rule_job.rule)


class OutputQuery(PageQuery):
    """Selects files that a job has published."""

    kind: Annotated[tuple[FileKind, ...], BeforeValidator(_split_at_commas)] = Field(
        default=(FileKind.OUTPUT, FileKind.REPORT),
        min_length=1,
        description="Files of any of these kinds; repeat the parameter or separate them by commas.",
        examples=[["log,benchmark"]],
    )
