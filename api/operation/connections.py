"""Ends connections that send no request: each costs a file descriptor, and anybody can open many."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def protocol_of(head_seconds: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, with a limit for the time from the opening of a connection to its first request.

    uvicorn itself only ends connections that are idle after a request (`timeout_keep_alive`).
    """

    class ImpatientProtocol(HttpToolsProtocol):
        _silence: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
            super().connection_made(transport)
            self._silence = self.loop.call_later(head_seconds, transport.abort)

        def on_headers_complete(self) -> None:
            self._end_silence()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_silence()
            super().connection_lost(exc)

        def _end_silence(self) -> None:
            if self._silence is not None:
                self._silence.cancel()
                self._silence = None

    return ImpatientProtocol
