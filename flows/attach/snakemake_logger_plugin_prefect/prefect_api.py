"""The requests to Prefect's API that a run needs, by the standard library alone.

Reads what Prefect's own programs read: `PREFECT_API_URL`, and `PREFECT_API_AUTH_STRING` or
`PREFECT_API_KEY`.
"""

import json
import os
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

REQUEST_SECONDS = 10.0
_RETRIABLE = (408, 409, 425, 429)
_SERVER_ERROR = 500
_NOT_FOUND = 404
_UNAUTHORIZED = (401, 403)


class Unavailable(Exception):
    """Prefect does not answer, or has an error of its own: ask again later."""


class Rejected(Exception):
    """Prefect rejects the request: asking again does not help."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_not_found(self) -> bool:
        return self.status == _NOT_FOUND

    @property
    def is_unauthorized(self) -> bool:
        return self.status in _UNAUTHORIZED


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the credentials to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class PrefectApi:
    """Sends JSON, and returns JSON. Raises `Unavailable` and `Rejected`."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json", **headers}
        self._opener = urllib.request.build_opener(_NoRedirects)

    @classmethod
    def from_environment(cls) -> "PrefectApi | None":
        """None where `PREFECT_API_URL` is not set."""
        url = os.environ.get("PREFECT_API_URL", "").strip()
        return cls(url, _authorization()) if url else None

    @property
    def place(self) -> str:
        """The host, for messages: the address itself may hold a password."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def post(self, path: str, body: object) -> Any:
        return self._ask("POST", path, body)

    def patch(self, path: str, body: object) -> Any:
        return self._ask("PATCH", path, body)

    def _ask(self, method: str, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._url}{path}", data, headers=dict(self._headers), method=method
        )
        try:
            with self._opener.open(request, timeout=REQUEST_SECONDS) as response:
                answer = response.read()
            return json.loads(answer) if answer else None
        except urllib.error.HTTPError as error:
            with error:
                raise _translated(error) from None
        except (OSError, HTTPException, ValueError) as error:
            raise Unavailable(f"{self.place} does not answer: {_reason(error)}") from None


def _authorization() -> dict[str, str]:
    """As Prefect's client sends it."""
    if auth_string := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {b64encode(auth_string.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}


def _translated(error: urllib.error.HTTPError) -> Exception:
    text = f"HTTP {error.code} {error.reason}"
    if error.code >= _SERVER_ERROR or error.code in _RETRIABLE:
        return Unavailable(f"Prefect answers {text}")
    return Rejected(f"Prefect answers {text}", error.code)


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__
