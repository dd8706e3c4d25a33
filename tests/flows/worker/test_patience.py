"""A flow process asks Prefect again soon when Prefect is away."""

from collections.abc import Callable

import httpx
import pytest

from flows.worker.patience import PatientTransport


class Server(httpx.MockTransport):
    """Gives its answers one after the other; the last one again and again."""

    def __init__(self, *answers: Callable[[], httpx.Response]) -> None:
        self.requests: list[bytes] = []
        self._answers = list(answers)
        super().__init__(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request.read())
        return (self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])()


def refuses() -> httpx.Response:
    raise httpx.ConnectError("refused")


def answering(status: int) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(status)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.worker.patience._PAUSE_SECONDS", 0.01)


def test_it_asks_until_prefect_and_its_database_are_back() -> None:
    server = Server(refuses, answering(500), answering(503), answering(201))

    with httpx.Client(transport=PatientTransport(server)) as client:
        assert client.post("http://prefect/", content=b"state").status_code == 201

    assert server.requests == [b"state"] * 4


def test_what_prefect_refuses_is_not_asked_again() -> None:
    server = Server(answering(409))

    with httpx.Client(transport=PatientTransport(server)) as client:
        assert client.get("http://prefect/").status_code == 409

    assert len(server.requests) == 1


def test_it_ends_when_prefect_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.worker.patience._PATIENCE_SECONDS", 0.05)

    with httpx.Client(transport=PatientTransport(Server(refuses))) as client:
        with pytest.raises(httpx.ConnectError):
            client.get("http://prefect/")
        with pytest.raises(httpx.ConnectError):
            client.get("http://prefect/")
