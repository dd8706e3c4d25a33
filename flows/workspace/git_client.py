"""Connects to git servers, without the `git` program: only to checked addresses, and within limits.

Every IP address that a host name resolves to must be public, and the connection uses an address that was
checked. The same applies to redirects. Proxies, netrc files and git's configuration are ignored.
"""

import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Timer
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from dulwich.client import Urllib3HttpGitClient
from dulwich.config import ConfigDict
from urllib3 import HTTPConnectionPool, PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url
from urllib3.util.connection import create_connection

from flows.contract.addresses import GitSettings, check_git_address, is_public, not_public
from flows.contract.untrusted_tree import Refused
from flows.workspace.git_credentials import NO_CREDENTIALS, Credentials

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 30.0


class Transfer:
    """Everything that one checkout fetches, within one time limit and one size limit.

    Inside its context, connections can be opened. The timeouts of sockets only limit the time between
    bytes; this limits the total time.
    """

    def __init__(self, settings: GitSettings, credentials: Credentials = NO_CREDENTIALS) -> None:
        self.settings = settings
        self.credentials = credentials
        self._bytes_left = settings.git_max_bytes
        self._is_over = False
        self._sockets: list[socket.socket] = []
        self._timer = Timer(settings.git_timeout_seconds, self._end)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._timer.cancel()
        self._timer.join()
        for each in self._sockets:
            each.close()
        if self._is_over and isinstance(error, Exception):
            raise self._refusal() from error

    def client(self, address: str) -> "Client":
        return Client(address, self)

    def watch(self, connected: socket.socket) -> None:
        """Close the connection at the deadline. Raises `Refused` if that has passed."""
        self._sockets.append(connected.dup())  # a copy, because TLS detaches the socket itself
        if self._is_over:
            raise self._refusal()

    def spend(self, number: int) -> None:
        """Count received bytes. Raises `Refused` if they are too many."""
        self._bytes_left -= number
        if self._bytes_left < 0:
            raise Refused(
                f"the git server sends more than {self.settings.git_max_bytes:,} bytes",
                "Send only the workflow, as a bundle (PUT /bundles); "
                "the operator sets the limit with JOBS_GIT_MAX_BYTES.",
            )

    @property
    def is_exhausted(self) -> bool:
        """Whether a limit was reached, so that nothing more can be fetched."""
        return self._is_over or self._bytes_left < 0

    def _end(self) -> None:
        self._is_over = True
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _refusal(self) -> Refused:
        return Refused(
            f"fetching from the git server takes longer than {self.settings.git_timeout_seconds:g} seconds",
            "Submit the job again later, or send the workflow as a bundle (PUT /bundles); "
            "the operator sets the limit with JOBS_GIT_TIMEOUT_SECONDS.",
        )


class Client(Urllib3HttpGitClient):
    """Connects to one server, through checked connections and within limits."""

    def __init__(self, address: str, transfer: Transfer) -> None:
        url = urlsplit(address)
        super().__init__(
            urlunsplit((url.scheme, url.netloc, "/", "", "")),
            pool_manager=CheckedPoolManager(transfer),
            config=ConfigDict(),
            quiet=True,
        )
        self._transfer = transfer

    def require_smart_server(self) -> None:
        if self.dumb:
            raise Refused(
                "the git server supports only the old 'dumb' protocol",
                "Use another address of the repository, or send the workflow as a bundle (PUT /bundles).",
            )

    def _http_request(self, *arguments: Any, **keywords: Any) -> tuple[Any, Callable[[int], bytes]]:
        response, read = super()._http_request(*arguments, **keywords)

        def counted(*size: int) -> bytes:
            data = read(*size)
            self._transfer.spend(len(data))
            return data

        return response, counted


class CheckedPoolManager(PoolManager):
    """Checks every requested URL, including those of redirects. Sends credentials only where they belong."""

    def __init__(self, transfer: Transfer) -> None:
        super().__init__(timeout=Timeout(connect=_CONNECT_SECONDS, read=_SILENCE_SECONDS))
        self._transfer = transfer

    def urlopen(self, method: str, url: str, *arguments: Any, **keywords: Any) -> Any:
        # Parsed as urllib3 does it, because that is what it connects to. Git itself adds a query.
        plain = parse_url(url)._replace(query=None, fragment=None).url
        check_git_address(plain, self._transfer.settings)
        headers = {
            name: value
            for name, value in (keywords.pop("headers", None) or self.headers).items()
            if name.lower() != "authorization"  # of the request that was redirected here
        }
        if (header := self._transfer.credentials.header_for(plain)) is not None:
            headers["Authorization"] = header
        return super().urlopen(method, url, *arguments, headers=headers, **keywords)

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        pool = super()._new_pool(scheme, host, port, request_context)
        kind = _CheckedHTTPSConnection if scheme == "https" else _CheckedHTTPConnection
        pool.ConnectionCls = partial(kind, self._transfer)  # type: ignore[assignment]  # it is called only
        return pool


class _CheckedHTTPConnection(HTTPConnection):
    """Connects to an address that was checked, not to what the name resolves to a moment later."""

    def __init__(self, transfer: Transfer, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._transfer = transfer

    def _new_conn(self) -> socket.socket:
        connected = _connect(self, self._transfer.settings)
        self._transfer.watch(connected)
        return connected


class _CheckedHTTPSConnection(_CheckedHTTPConnection, HTTPSConnection):
    """Still checks the certificate against the host's name."""


def _connect(connection: HTTPConnection, settings: GitSettings) -> socket.socket:
    """Connect to one of the host's addresses, if all of them are public."""
    host = connection.host.strip("[]")
    found = socket.getaddrinfo(host, connection.port, type=socket.SOCK_STREAM)
    addresses = [str(place[0]).partition("%")[0] for *_, place in found]
    may_be_private = settings.allows_private(host.lower().rstrip("."))
    if not may_be_private and not all(is_public(ipaddress.ip_address(address)) for address in addresses):
        raise not_public(host)
    last_error = OSError("the host name has no address")
    for address in addresses:
        try:
            return create_connection(
                (address, connection.port), connection.timeout, socket_options=connection.socket_options
            )
        except OSError as error:
            last_error = error
    raise last_error
