"""A cursor gives back the position that it was made of, and nothing else."""

import re
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.prefect.translation import tags_from
from api.web.cursors import JobPosition, LogPosition, OutputPosition, Position, RuleJobPosition
from api.web.problems import BadCursor
from api.web.queries import MAX_CURSOR, JobQuery
from api.web.schemas import Output
from api.web.statuses import JobStatus
from flows.contract.spec import JobSpec

moments = st.datetimes(datetime(1970, 1, 1), datetime(2999, 12, 31), timezones=st.just(UTC))
counts = st.integers(0, 2**31 - 1)
listings = st.text(alphabet="0123456789abcdef", min_size=1, max_size=16)
positions = st.one_of(
    st.builds(JobPosition, listing=listings, at=moments, given=st.lists(st.uuids(), max_size=5).map(tuple)),
    st.builds(RuleJobPosition, listing=listings, below=st.uuids(), row=counts),
    st.builds(LogPosition, listing=listings, timestamp=moments, created=moments, id=st.uuids()),
    st.builds(OutputPosition, listing=listings, after=st.text()),
)


@given(positions)
def test_a_position_survives_its_cursor(position: Position) -> None:
    assert type(position).decode(position.encode(), position.listing) == position


@given(positions)
def test_a_cursor_continues_no_other_listing(position: Position) -> None:
    with pytest.raises(BadCursor):
        type(position).decode(position.encode(), position.listing + "0")


@given(st.text())
def test_any_other_word_is_refused_as_a_cursor(word: str) -> None:
    with pytest.raises(BadCursor):
        RuleJobPosition.decode(word, "listing")


def test_no_cursor_is_the_first_page() -> None:
    assert JobPosition.decode(None, "listing") is None


def test_a_cursor_has_room_for_a_thousand_jobs_of_the_same_moment() -> None:
    position = JobPosition(
        listing="0" * 16, at=datetime(2025, 1, 1, tzinfo=UTC), given=tuple(map(UUID, [f"{1:032}"] * 1000))
    )

    assert len(position.encode()) < MAX_CURSOR


@given(st.lists(moments, min_size=1, max_size=6), st.lists(st.uuids(), max_size=3))
def test_jobs_of_the_same_moment_are_remembered_over_pages(page: list[datetime], before: list[UUID]) -> None:
    page.sort(reverse=True)
    jobs = [(at, UUID(int=number)) for number, at in enumerate(page)]
    first = JobPosition(listing="x", at=page[0], given=tuple(before))

    end = JobPosition.at_end_of(jobs, first, "x")

    of_the_last_moment = [job_id for at, job_id in jobs if at == page[-1]]
    assert end.at == page[-1]
    assert list(end.given) == (before if page[0] == page[-1] else []) + of_the_last_moment


def test_other_filters_make_another_listing_but_another_page_size_does_not() -> None:
    query = JobQuery(status=(JobStatus.RUNNING,), tag=("a:b",))

    assert query.fingerprint() == query.model_copy(update={"limit": 7, "cursor": "x"}).fingerprint()
    assert query.fingerprint() != JobQuery(status=(JobStatus.RUNNING,), tag=("a:c",)).fingerprint()
    assert query.fingerprint() != query.fingerprint("another job")


SHOWN = st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])


@given(
    st.dictionaries(
        st.text(SHOWN, min_size=1, max_size=20).filter(lambda key: re.fullmatch(r"[^:\s]+", key)),
        st.text(SHOWN, max_size=20),
        max_size=5,
    )
)
def test_tags_survive_prefect(tags: dict[str, str]) -> None:
    spec = JobSpec.model_validate({"engine": "mock", "tags": tags})

    assert tags_from(spec.prefect_tags()) == tags


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_the_address_of_an_output_needs_no_further_quoting(path: str) -> None:
    assert Output.url_of(UUID(int=1), path).isascii()
