"""How Prefect is asked: what leaves the process, and what is made of an answer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.attach.snakemake_logger_plugin_prefect.prefect_api import PrefectApi, Rejected, Unavailable


@contextmanager
def server_that_answers(status: int, location: str = "") -> Iterator[tuple[str, list[str | None]]]:
    """The address of a server, and the credentials that it was sent."""
    seen: list[str | None] = []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)


def api(monkeypatch: pytest.MonkeyPatch, url: str) -> PrefectApi:
    monkeypatch.setenv("PREFECT_API_URL", url)
    found = PrefectApi.from_environment()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("variable", "sent"),
    [("PREFECT_API_AUTH_STRING", "Basic YWRtaW46cGFzcw=="), ("PREFECT_API_KEY", "Bearer admin:pass")],
)
def test_credentials_are_sent_to_prefect_and_follow_no_redirect(
    variable: str, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "admin:pass")
    with server_that_answers(200) as (other, seen_there), server_that_answers(307, other) as (url, seen):
        with pytest.raises(Rejected):
            api(monkeypatch, url).get("/health")
        assert (seen, seen_there) == ([sent], [])


@pytest.mark.parametrize(("status", "error"), [(500, Unavailable), (429, Unavailable), (401, Rejected)])
def test_only_what_may_pass_is_asked_again(
    status: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with server_that_answers(status) as (url, _), pytest.raises(error, match=str(status)):
        api(monkeypatch, url).get("/health")


def test_a_password_in_the_address_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable) as raised:
        api(monkeypatch, "http://admin:pass@127.0.0.1:9/api").get("/health")
    assert "http://127.0.0.1:9 does not answer" in str(raised.value)
    assert "pass" not in str(raised.value)


def test_without_an_address_there_is_nothing_to_ask() -> None:
    assert PrefectApi.from_environment() is None
