"""A client of the REST API: requests, pages and events over HTTP."""

import json
import os
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
FINAL = frozenset({"completed", "failed", "cancelled"})
_NOT_PACKED = frozenset({".git", ".snakemake", ".jobs"})
_SILENCE_SECONDS = 45.0
"""A stream that is silent for this time is broken: the service sends an event id every second."""

_BUSY = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})
_PAUSE_SECONDS = 2.0
_LONGEST_REQUEST_SECONDS = 120.0
_RECONNECT_SECONDS = 300.0

Json = dict[str, Any]


class ServiceError(Exception):
    """The service rejected the request, or can't be reached. The message says what to do."""


class _BusyError(ServiceError):
    """The service can't answer now; a retry may help."""


@dataclass(frozen=True)
class Event:
    """One server-sent event: `job`, `task` or `log`."""

    kind: str
    data: Json


class Service:
    """Every method may raise `ServiceError`."""

    def __init__(self, url: str, token: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=60, follow_redirects=True)

    @classmethod
    def from_environment(cls) -> "Service":
        """Uses the address in `JOBS_URL` and the token in `JOBS_TOKEN`."""
        return cls(os.environ.get("JOBS_URL", DEFAULT_URL), os.environ.get("JOBS_TOKEN"))

    def get(self, path: str, **params: Any) -> Json:
        return self._json("GET", path, params=_given(params))

    def post(self, path: str, body: Json | None = None, headers: dict[str, str] | None = None) -> Json:
        return self._json("POST", path, json=body, headers=headers)

    def put(self, path: str, body: Json) -> Json:
        """Bounded by what the service waits."""
        return self._json("PUT", path, json=body, timeout=_LONGEST_REQUEST_SECONDS)

    def delete(self, path: str) -> None:
        self._request("DELETE", path)

    def items(self, path: str, limit: int | None = None, **params: Any) -> Iterator[Json]:
        """Every item of a list, page by page, at most `limit`."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = min(left or 200, 200)
            page = self.get(path, **params, cursor=cursor, limit=size)
            yield from page["items"]
            cursor = page["next_cursor"]
            left = None if left is None else left - len(page["items"])
            if cursor is None:
                return

    def send_directory(self, directory: Path) -> str:
        """Packs and uploads a workflow's directory; returns the name of the bundle."""
        paths = sorted(_files_of(directory))
        self._check_size(directory, paths)
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=6) as packed:
                for path in paths:
                    packed.add(path, str(path.relative_to(directory)), recursive=False)
            archive.seek(0)
            bundle: str = self._json("PUT", "/bundles", content=archive)["bundle"]
            return bundle

    def _check_size(self, directory: Path, paths: Sequence[Path]) -> None:
        """Raises `ServiceError` before anything is packed, if the service would reject it."""
        limits = self.get("/bundles/limits")
        sizes: Counter[str] = Counter()
        for path in paths:
            sizes[path.relative_to(directory).parts[0]] += path.lstat().st_size
        if sizes.total() <= limits["max_unpacked_bytes"] and len(paths) <= limits["max_entries"]:
            return
        largest = ", ".join(f"{name} ({size / 1e6:,.0f} MB)" for name, size in sizes.most_common(3))
        raise ServiceError(
            f"{directory} has {len(paths):,} files and directories with {sizes.total() / 1e6:,.0f} MB. The "
            f"service takes {limits['max_entries']:,} with {limits['max_unpacked_bytes'] / 1e6:,.0f} MB.\n"
            f"Leave data out of it; the largest are {largest}. Link data of the server with --input, or use "
            "--server-path."
        )

    def events(self, job_id: str) -> Iterator[Event]:
        """The events of a job until it has ended. Reconnects for some minutes if the connection breaks."""
        last_event_id = ""
        heard_at = time.monotonic()
        while True:
            headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
            try:
                with self._stream(f"/jobs/{job_id}/events", headers) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
                    for event_id, event in _parsed(response.iter_lines()):
                        heard_at = time.monotonic()
                        last_event_id = event_id or last_event_id
                        if event is not None:
                            yield event
                if last_event_id.endswith("-end"):
                    return
            except (httpx.TransportError, _BusyError) as error:
                if not last_event_id or time.monotonic() - heard_at > _RECONNECT_SECONDS:
                    message = str(error) if isinstance(error, _BusyError) else self._unreachable()
                    raise ServiceError(message) from None
            time.sleep(_PAUSE_SECONDS)

    def download(self, path: str, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.partial")
        try:
            with self._stream(path, {}) as response, partial.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        except httpx.TransportError as error:
            raise ServiceError(f"{path} could not be downloaded: {error or self._unreachable()}") from error
        partial.replace(place)

    @contextmanager
    def _stream(self, path: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        timeout = httpx.Timeout(10, read=_SILENCE_SECONDS)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if response.is_error:
                response.read()
                raise (_BusyError if response.status_code in _BUSY else ServiceError)(_message_of(response))
            yield response

    def _json(self, method: str, path: str, **request: Any) -> Json:
        answer: Json = self._request(method, path, **request).json()
        return answer

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise ServiceError(self._unreachable()) from error
        if response.is_error:
            raise ServiceError(_message_of(response))
        return response

    def _unreachable(self) -> str:
        return f"No service answers at {self.url}. Start it (make up), or set JOBS_URL to its address."


def output_path(job_id: str, path: str) -> str:
    return f"/jobs/{job_id}/outputs/{quote(path)}"


def _files_of(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.name not in _NOT_PACKED:
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from _files_of(path)


def _given(params: Json) -> Json:
    return {name: value for name, value in params.items() if value not in (None, (), [])}


def _message_of(response: httpx.Response) -> str:
    """The message of a problem. A response in another form came from a proxy."""
    try:
        problem = response.json()
        return f"{problem['detail']}\n{problem['resolution']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.request.method} {response.request.url} answered {response.status_code}."


def _parsed(lines: Iterator[str]) -> Iterator[tuple[str, Event | None]]:
    """Event ids and events, parsed as the HTML standard says; the data of this service is always one line."""
    kind, data = "", ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            kind = value
        elif field == "data":
            data = value
        elif field == "id":
            yield value, None
        elif not line and data:
            yield "", Event(kind, json.loads(data))
            kind, data = "", ""
