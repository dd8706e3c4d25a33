"""Asks Prefect again soon: its own client waits up to half a minute between two attempts.

A server that was killed is back after seconds, and a job that has ended should be seen to have ended then.
"""

import time

import httpx

_PAUSE_SECONDS = 1.0
_PATIENCE_SECONDS = 90.0
_AWAY = frozenset({500, 502, 503})
"""Prefect answers 500 while its database is away."""

_CONNECTION_ERRORS = (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class PatientTransport(httpx.BaseTransport):
    """Repeats requests while the server is away. After some time without success it leaves that to others."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner
        self._away_since: float | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        while True:
            try:
                response = self._inner.handle_request(request)
            except _CONNECTION_ERRORS:
                if not self._waits():
                    raise
            else:
                if response.status_code not in _AWAY:
                    self._away_since = None
                    return response
                if not self._waits():
                    return response
                response.close()

    def close(self) -> None:
        self._inner.close()

    def _waits(self) -> bool:
        """Wait a moment, unless the server is away for long."""
        now = time.monotonic()
        self._away_since = self._away_since or now
        if now - self._away_since > _PATIENCE_SECONDS:
            return False
        time.sleep(_PAUSE_SECONDS)
        return True
