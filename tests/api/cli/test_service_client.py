"""The command line's client meets a service that is away, busy, or not to be trusted."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from api.cli import service as cli_service
from api.cli.commands import list_jobs, logs, outputs
from api.cli.service import Service, ServiceError
from tests.flows.git_servers import answering

JOB = "0199c2f4-6d1e-7c35-b5d1-6d3f5b0a9c11"


def origin(address: str) -> str:
    return urlsplit(address)._replace(path="").geturl()


def tell(request: BaseHTTPRequestHandler, status: int, media_type: str, body: bytes = b"") -> None:
    request.send_response(status)
    request.send_header("Content-Type", media_type)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def test_a_follower_waits_for_a_service_that_is_busy_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_service, "_PAUSE_SECONDS", 0.01)
    answers = [
        (200, b'event: job\ndata: {"status": "running"}\n\nid: 1\n\n'),
        (503, b""),
        (429, b""),
        (200, b'event: job\ndata: {"status": "completed"}\n\nid: 2-end\n\n'),
    ]
    known: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        known.append(request.headers.get("Last-Event-ID"))
        status, body = answers.pop(0)
        tell(request, status, "text/event-stream", body)

    with answering(answer) as (address, _):
        told = [event.data["status"] for event in Service(origin(address), None).events(JOB)]

    assert told == ["running", "completed"]
    assert known == [None, "1", "1", "1"]


def test_a_follower_of_a_service_that_is_gone_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_service, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(cli_service, "_RECONNECT_SECONDS", 0.2)
    begun = b"event: job\ndata: {}\n\nid: 1\n\n"
    with answering(lambda request: tell(request, 200, "text/event-stream", begun)) as (address, _):
        events = Service(origin(address), None).events(JOB)
        next(events)

    with pytest.raises(ServiceError, match="No service answers"):
        list(events)


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "a/../../x"])
def test_an_output_is_not_downloaded_out_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A service that is not trusted names it."""
    page = f'{{"items": [{{"path": "{path}", "size_bytes": 1}}], "next_cursor": null}}'.encode()
    with answering(lambda request: tell(request, 200, "application/json", page)) as (address, _):
        monkeypatch.setenv("JOBS_URL", origin(address))
        with pytest.raises(ServiceError, match="is outside"):
            outputs(JOB, download=tmp_path / "down")

    assert list(tmp_path.iterdir()) == []


ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\x9b1A"
SHOWN = r"\x1b[2J\x1b]0;owned\x07\r\x9b1A"


@pytest.mark.parametrize(
    ("show", "item", "shown"),
    [
        (
            logs,
            {"timestamp": "2026-11-24T10:00:00Z", "level": "INFO", "message": f"{ESCAPES}one\n2026 two"},
            f"2026-11-24T10:00:00 INFO     {SHOWN}one\n    2026 two\n",
        ),
        (
            lambda _: list_jobs(),
            {"name": f"[red]{ESCAPES}", "id": JOB, "group": "default", "status": "failed"}
            | {"progress": {"done": 0, "total": 1}, "created_at": None},
            f"[red]{SHOWN}",
        ),
    ],
)
def test_a_terminal_obeys_nothing_that_others_have_written(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    show: Callable[[str], None],
    item: dict[str, Any],
    shown: str,
) -> None:
    page = json.dumps({"items": [item], "next_cursor": None}).encode()
    with answering(lambda request: tell(request, 200, "application/json", page)) as (address, _):
        monkeypatch.setenv("JOBS_URL", origin(address))
        show(JOB)

    printed = capsys.readouterr().out
    assert shown in printed
    assert not set(printed) & {"\x1b", "\x07", "\r", "\x9b"}
