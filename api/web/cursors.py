"""Cursors: where a page ended, encoded so that every replica understands it, also after a restart.

A cursor is a position in a total order, not a snapshot. The pages that follow from it repeat nothing,
and contain everything that existed when the first page was read. Clients treat it as opaque.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.web.problems import BadCursor, FieldProblem

# Clients can forge a cursor, so its values must fit PostgreSQL's types.
_Moment = Annotated[
    AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC))
]
_Count = Annotated[int, Field(ge=0, lt=2**31)]


class Position(BaseModel):
    """The end of a page, in the order of its listing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    listing: str
    """Fingerprint of the listing and its filters: the cursor is valid for no other."""

    def encode(self) -> str:
        return urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, cursor: str | None, listing: str) -> Self | None:
        """The position in `cursor`, none for the first page. Raises `BadCursor`."""
        if cursor is None:
            return None
        try:
            position = cls.model_validate_json(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        except ValueError as error:
            raise _bad_cursor("The cursor is invalid.") from error
        if position.listing != listing:
            raise _bad_cursor("The cursor belongs to another listing, or to other filters.")
        return position


class JobPosition(Position):
    """Jobs are ordered by their scheduled start time, newest first."""

    at: _Moment
    given: tuple[UUID, ...]
    """The jobs of exactly that microsecond that earlier pages contained: Prefect can't order them further.

    A cursor holds about a thousand (`api.web.queries.MAX_CURSOR`). With more, it is rejected as too long:
    no job is skipped silently.
    """

    @classmethod
    def at_end_of(cls, page: Sequence[tuple[datetime, UUID]], after: Self | None, listing: str) -> Self:
        """The end of a page of jobs, by time and id, that followed `after`."""
        end, _ = page[-1]
        before = after.given if after and after.at == end else ()
        return cls(listing=listing, at=end, given=(*before, *(job_id for at, job_id in page if at == end)))


class RuleJobPosition(Position):
    """Rule jobs are ordered by id, descending."""

    below: UUID
    row: _Count
    """The row of this id: only a hint, because rows are added and removed."""


class LogPosition(Position):
    """Log lines are ordered by time, then by when Prefect stored them, then by id; oldest first."""

    timestamp: _Moment
    created: _Moment
    id: UUID


class OutputPosition(Position):
    """Outputs are ordered by path."""

    after: str


def _bad_cursor(detail: str) -> BadCursor:
    return BadCursor(
        detail,
        "Pass `next_cursor` of the previous page unchanged, with the same filters, or start without it.",
        [FieldProblem(pointer="?cursor", message=detail)],
    )
