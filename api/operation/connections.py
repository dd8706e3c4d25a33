"""Ends connections of clients that neither ask nor read: each costs memory and a file descriptor."""

import asyncio
import fcntl
import sys
import termios

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LEAST_BYTES_PER_SECOND = 1024
"""Slower than any modem."""


def protocol_of(head_seconds: float, unread_seconds: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, with limits for its clients.

    - `head_seconds` from the opening of a connection to its first request. uvicorn itself only ends
      connections that are idle after a request (`timeout_keep_alive`).
    - `unread_seconds` in which a client must read some of an answer that waits for it.
    """
    return type("Protocol", (_ImpatientProtocol,), {"patience": (head_seconds, unread_seconds)})


class _ImpatientProtocol(HttpToolsProtocol):
    patience: tuple[float, float]
    _silence: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self._silence = self.loop.call_later(self.patience[0], transport.abort)

    def on_headers_complete(self) -> None:
        _cancel(self._silence)
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        _cancel(self._unread)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._silence)
        _cancel(self._unread)
        super().connection_lost(exc)

    def _watch_reader(self) -> None:
        self._unread = self.loop.call_later(self.patience[1], self._check_reader, self._unread_bytes())

    def _check_reader(self, unread_before: int) -> None:
        """A client that reads is watched again, however large the answer is."""
        if unread_before - self._unread_bytes() < _LEAST_BYTES_PER_SECOND * self.patience[1]:
            self.transport.abort()
        else:
            self._watch_reader()

    def _unread_bytes(self) -> int:
        """With those in the kernel, which holds megabytes: it takes more from us only now and then."""
        file = self.transport.get_extra_info("socket").fileno()
        in_kernel = int.from_bytes(fcntl.ioctl(file, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return in_kernel + self.transport.get_write_buffer_size()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
