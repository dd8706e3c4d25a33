"""What clients may ask of a listing. An unknown parameter is refused: a filter that is
silently ignored would answer with jobs that nobody asked for.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api.web.schemas import RuleJob
from api.web.statuses import JobStatus, RuleJobStatus

MAX_LIMIT = 200
"""Prefect returns no more rows at once (`PREFECT_SERVER_API_DEFAULT_LIMIT`)."""

MAX_CURSOR = 60_000
"""What fits into the request line of common servers and proxies (64 KiB)."""


def _split_at_commas(values: object) -> object:
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [part for value in values for part in str(value).split(",")]
    return values


# PostgreSQL holds no NUL, and Prefect answers one with a 503 that looks like an outage.
Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


class PageQuery(BaseModel):
    """Which page of a listing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=50, ge=1, le=MAX_LIMIT, description="How many items at most.")
    cursor: str | None = Field(
        default=None,
        json_schema_extra={"pattern": "^[A-Za-z0-9_-]*$"},  # told, and answered by `BadCursor`
        description="`next_cursor` of the page before; the first page when absent.",
    )

    def fingerprint(self, *scope: object) -> str:
        """Tells this listing, its filters and the job in `scope`, from others that a cursor may be of."""
        filters = self.model_dump_json(exclude={"limit", "cursor"})
        return sha256(repr((type(self).__name__, filters, *map(str, scope))).encode()).hexdigest()[:16]


class JobQuery(PageQuery):
    """Which jobs. Filters are exact, and all of them must match."""

    status: Annotated[tuple[JobStatus, ...], BeforeValidator(_split_at_commas)] = Field(
        default=(),
        description="Any of these; repeated or separated by commas.",
        examples=[["pending,running"]],
    )
    group: Text | None = Field(default=None, description="The group.", examples=["default"])
    tag: tuple[Text, ...] = Field(
        default=(),
        max_length=50,
        description="All of these, each as `key:value`; repeated.",
        examples=[["project:x"]],
    )
    name: Text | None = Field(default=None, description="The whole name.", examples=["trio-1"])


class RuleJobQuery(PageQuery):
    """Which rule jobs. Filters are exact, and all of them must match."""

    status: Annotated[tuple[RuleJobStatus, ...], BeforeValidator(_split_at_commas)] = Field(
        default=(), description="Any of these; repeated or separated by commas.", examples=[["failed"]]
    )
    rule: Text | None = Field(default=None, description="The rule.", examples=["call"])

    def matches(self, rule_job: RuleJob) -> bool:
        return (not self.status or rule_job.status in self.status) and self.rule in (None, rule_job.rule)
