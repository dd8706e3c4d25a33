"""Secrets are replaced wherever they are, in whichever usual encoding, and however a file is read."""

import io
import json
import shlex
from base64 import b64encode
from dataclasses import fields
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.record import redaction as module
from flows.record.attempt_logs import AttemptLogs
from flows.record.mirror import Mirror
from flows.record.redaction import NOTHING, Redaction
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    Outcome,
    RuleJobPlanned,
    decode,
    encode,
)

SECRET = 'it\'s "a\\secret" & höchst/geheim'
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\n-----END KEY-----\n"


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        shlex.quote(SECRET),
        quote(SECRET, safe=""),
        b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_secret_is_found_in_its_usual_encodings(written: str) -> None:
    shown = Redaction([SECRET, "another"]).text(f"before {written} after")

    assert "***" in shown
    assert "geheim" not in shown
    assert written not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


def test_each_line_of_a_key_and_each_text_of_a_json_file_is_a_secret() -> None:
    account = json.dumps({"type": "x", "private_key": KEY, "nested": [{"token": "t0k3n-of-it"}]})

    shown = Redaction([account]).text(f"it read MIIEvQIBADANBgkq and t0k3n-of-it, of type x\n{KEY}")

    assert shown == "it read *** and ***, of type x\n***\n"


def test_without_secrets_nothing_changes() -> None:
    assert NOTHING.text(SECRET) == SECRET
    assert b"".join(NOTHING.stream(io.BytesIO(b"abc"))) == b"abc"


def test_every_text_of_an_event_is_redacted_and_its_types_are_kept() -> None:
    planned = RuleJobPlanned(
        time=1.0,
        job_id=3,
        rule="fetch",
        wildcards={"key": SECRET},
        resources={"mem_mb": 5, "place": SECRET},
        inputs=(f"in/{SECRET}",),
        reason=SECRET,
    )
    finished = AttemptFinished(
        time=1.0, job_id=3, attempt=1, outcome=Outcome.FAILED, started_at=0, finished_at=1, message=SECRET
    )
    redaction = Redaction([SECRET])

    for event in (planned, finished):
        redacted = redaction.event(event)
        assert b"geheim" not in encode(redacted)
        assert decode(encode(redacted)) == redacted
        assert [type(getattr(redacted, each.name)) for each in fields(event)] == [
            type(getattr(event, each.name)) for each in fields(event)
        ]


@given(st.text("ab", max_size=60), st.integers(1, 9))
def test_a_file_is_redacted_as_a_whole_however_it_is_read(text: str, size: int) -> None:
    redaction = Redaction(["abba", "bbbbb"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_BYTES", size)

        pieces = b"".join(redaction.stream(io.BytesIO(text.encode())))

    assert pieces.decode() == redaction.text(text)


def test_a_secret_in_an_endless_line_is_found_across_the_pieces_of_the_log(tmp_path: object) -> None:
    flow_run_id = uuid4()
    mirror = Mirror(flow_run_id)
    logs = AttemptLogs(flow_run_id, redaction=Redaction([SECRET]))
    log = f"{tmp_path}/1.log"
    with open(log, "w") as file:
        file.write(("." * 32_750 + SECRET) * 3)
    for event in (
        RuleJobPlanned(time=1.0, job_id=1, rule="a", wildcards={}, resources={}),
        AttemptStarted(time=1.0, job_id=1, attempt=1, resources={}, log_path=log),
        AttemptFinished(
            time=2.0, job_id=1, attempt=1, outcome=Outcome.SUCCEEDED, started_at=1.0, finished_at=2.0
        ),
    ):
        mirror.observe(event)
        logs.observe(event, mirror)

    shown = "".join(entry["message"] for entry in logs.take()[1:])

    assert shown.count("***") == 3
    assert set(shown) == {".", "*"}
