"""The protocol between engine and flow: whatever is said arrives, one line for each event."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.snakemake_process.events import (
    PROTOCOL_VERSION,
    EngineExited,
    Message,
    Outcome,
    PlanCompleted,
    ProtocolError,
    RuleJobPlanned,
    WorkflowEvent,
    decode,
    encode,
)

EVENT_TYPES: tuple[type[WorkflowEvent], ...] = get_args(WorkflowEvent)
every_event_type = pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda kind: kind.type)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text()  # any character that UTF-8 can hold, newlines and NUL among them
VALUES: dict[object, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    float: NUMBERS,
    int: st.integers(),
    float | None: st.none() | NUMBERS,
    int | None: st.none() | st.integers(),
    str: TEXTS,
    str | None: st.none() | TEXTS,
    Outcome: st.sampled_from(Outcome),
    tuple[int, ...]: st.lists(st.integers()).map(tuple),
    tuple[str, ...]: st.lists(TEXTS).map(tuple),
    Mapping[str, str]: st.dictionaries(TEXTS, TEXTS),
    Mapping[str, int | float | str]: st.dictionaries(TEXTS, st.integers() | NUMBERS | TEXTS),
}
"""What a field of each type may hold."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def events_of(event_type: type[WorkflowEvent]) -> st.SearchStrategy[WorkflowEvent]:
    return st.builds(event_type, **{field.name: VALUES[field.type] for field in fields(event_type)})


def a_record(**changes: object) -> dict[str, object]:
    """A good record of `plan_completed`, changed."""
    return {"v": PROTOCOL_VERSION, "type": PlanCompleted.type, "time": 1.5, "total": 3} | changes


@every_event_type
@given(data=st.data())
def test_an_event_comes_back_from_its_line_unchanged(
    event_type: type[WorkflowEvent], data: st.DataObject
) -> None:
    event = data.draw(events_of(event_type))
    line = encode(event)
    assert decode(line) == decode(line.decode()) == event
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    record = json.loads(line)
    assert (record["v"], record["type"]) == (PROTOCOL_VERSION, event_type.type)


def test_what_a_newer_engine_adds_to_an_event_is_passed_over() -> None:
    line = json.dumps(a_record(colour="green", nested={"total": 9}))
    assert decode(line) == PlanCompleted(time=1.5, total=3)


def test_what_an_older_engine_leaves_out_has_a_default() -> None:
    record = {"v": 1, "type": "rule_job_planned", "time": 1, "job_id": 4, "rule": "map"}
    event = decode(json.dumps(record | {"wildcards": {}, "resources": {}}))
    assert event == RuleJobPlanned(time=1, job_id=4, rule="map", wildcards={}, resources={})


@pytest.mark.parametrize(
    ("line", "explanation"),
    [
        (b"", "not JSON"),
        (b"Traceback (most recent call last):\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (encode(EngineExited(time=1, exit_code=0))[:-9], "not JSON"),
        (b'["a list"]', "protocol version"),
        (b"null", "protocol version"),
        (json.dumps(a_record(v=2)), "protocol version 1"),
        (json.dumps({"type": "plan_completed", "time": 1, "total": 1}), "protocol version 1"),
        (json.dumps(a_record(type="rule_job_painted")), "unknown event type 'rule_job_painted'"),
        (json.dumps(a_record(type=None)), "unknown event type"),
        (json.dumps(a_record(type=["plan_completed"])), "unknown event type"),
        (json.dumps({"v": 1, "type": "plan_completed", "time": 1}), "bad plan_completed: .*'total'"),
        (
            json.dumps(
                {"v": 1, "type": "attempt_finished", "time": 1, "job_id": 1, "attempt": 1}
                | {"outcome": "exploded", "started_at": 1, "finished_at": 2}
            ),
            "bad attempt_finished: .*exploded",
        ),
    ],
    ids=[
        "nothing",
        "a traceback",
        "not text",
        "half a line",
        "a list",
        "null",
        "another version",
        "no version",
        "unknown type",
        "no type",
        "a type that is no name",
        "a missing field",
        "an unknown outcome",
    ],
)
def test_a_line_that_is_no_event_is_refused_with_the_reason(line: bytes | str, explanation: str) -> None:
    with pytest.raises(ProtocolError, match=explanation):
        decode(line)


@given(changes=st.dictionaries(st.sampled_from(["v", "type", "time", "total", "new"]), JSON))
def test_whatever_a_line_holds_it_is_an_event_or_a_protocol_error(changes: dict[str, object]) -> None:
    line = json.dumps(a_record(**changes))
    try:
        event = decode(line)
    except ProtocolError:
        return
    assert isinstance(event, EVENT_TYPES)


@given(line=st.binary())
def test_whatever_bytes_arrive_they_are_an_event_or_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(line)


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("two\nlines\r\nand\x0b\x0c\x1c\x85\u2028\u2029more", None),
        ("a NUL \x00 in it", None),
        ("🐍 and ü", None),
        ("file\udcff name that is not UTF-8", "file? name that is not UTF-8"),
    ],
    ids=["line breaks", "NUL", "beyond ASCII", "a lone surrogate, as os.fsdecode makes it"],
)
def test_any_text_travels_in_one_line(said: str, heard: str | None) -> None:
    line = encode(Message(time=1, level="INFO", text=said))
    assert line.count(b"\n") == 1
    assert decode(line) == Message(time=1, level="INFO", text=said if heard is None else heard)


@given(text=st.text(st.characters(exclude_categories=[])))
def test_no_character_at_all_can_break_a_line(text: str) -> None:
    line = encode(Message(time=1, level="INFO", text=text))
    assert line.count(b"\n") == 1
    event = decode(line)
    assert isinstance(event, Message)
    assert len(event.text) == len(text)
