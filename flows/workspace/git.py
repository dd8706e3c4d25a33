"""Workflows from git repositories, without the `git` program: fetch, resolve, check out.

`flows.contract.addresses` checks the URL, and `flows.contract.untrusted_tree` the files. This module
checks what only a connection shows: every IP address that the host name resolves to must be public, and
the connection uses an address that was checked. The same applies to redirects. Proxies, netrc files and
git's configuration are ignored.
"""

import ipaddress
import shutil
import socket
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_IXUSR
from threading import Timer
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from dulwich.client import HTTPUnauthorized, Urllib3HttpGitClient
from dulwich.config import ConfigDict
from dulwich.errors import GitProtocolError, NotGitRepository
from dulwich.objects import S_ISGITLINK, Blob, Commit, ObjectID, Tag, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo
from urllib3 import HTTPConnectionPool, PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url
from urllib3.util.connection import create_connection

from flows.contract.addresses import GitSettings, check_git_address, is_public, not_public
from flows.contract.untrusted_tree import (
    Directory,
    Entry,
    File,
    Refused,
    Symlink,
    TreeLimits,
    parts_of,
    shown,
    write_tree,
)

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 30.0
_ID_LENGTHS = (40, 64)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class CheckoutSettings(GitSettings, TreeLimits):
    """The limits of a checkout."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A commit whose files were written."""

    commit: str
    notes: tuple[str, ...]
    """Differences from the repository."""


def check_out(
    address: str,
    ref: str | None,
    subdirectory: str,
    directory: Path,
    settings: CheckoutSettings,
    left_out: Container[str] = (),
) -> Checkout:
    """Write the files of a commit to `directory`, which must not exist yet. Leaves no files of git.

    Raises `Refused`.
    """
    check_git_address(address, settings)
    repository = directory.with_suffix(".git")
    shutil.rmtree(repository, ignore_errors=True)
    try:
        with _translating_git_errors(address, ref), Repo.init_bare(repository, mkdir=True) as repo:
            commit = _fetch(address, ref, repo, settings)
            notes: list[str] = []
            tree = _subtree(repo, commit, subdirectory)
            write_tree(_entries(repo, tree, "", notes), directory, settings, left_out)
            return Checkout(commit.id.decode(), tuple(notes))
    finally:
        shutil.rmtree(repository, ignore_errors=True)


def _fetch(address: str, ref: str | None, repo: Repo, settings: GitSettings) -> Commit:
    """Fetch the commit, without its history if the server allows that."""
    with _Deadline(settings.git_timeout_seconds) as deadline:
        return _fetch_until(deadline, address, ref, repo, settings)


def _fetch_until(
    deadline: "_Deadline", address: str, ref: str | None, repo: Repo, settings: GitSettings
) -> Commit:
    client = _Client(address, settings, deadline)
    wanted: list[ObjectID] = []

    def want(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        client.require_smart_server()
        found = _resolve(refs, ref)
        if found is None:
            raise Refused(
                f"the repository has no branch or tag {shown(ref or 'HEAD')}",
                "Set `workflow.ref` to a branch, a tag or a full commit id.",
            )
        wanted[:] = [found]
        return wanted

    def want_all(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        return [found for name, found in refs.items() if name.startswith((b"refs/heads/", b"refs/tags/"))]

    path = urlsplit(address).path
    try:
        client.fetch(path, repo, determine_wants=want, depth=1)
    except GitProtocolError:
        # Servers may refuse to send a commit that no branch or tag points to. It may be an ancestor of one.
        if not wanted or ref is None or not _is_commit_id(ref):
            raise
        client.fetch(path, repo, determine_wants=want_all)
    return _commit_of(repo, wanted[0], ref)


def _resolve(refs: Mapping[Ref, ObjectID], ref: str | None) -> ObjectID | None:
    """In the order of gitrevisions(7)."""
    if ref is None:
        return refs.get(Ref(b"HEAD"))
    for name in (ref, f"refs/{ref}", f"refs/tags/{ref}", f"refs/heads/{ref}"):
        if found := refs.get(Ref(name.encode())):
            return found
    return ObjectID(ref.lower().encode()) if _is_commit_id(ref) else None


def _is_commit_id(ref: str) -> bool:
    return len(ref) in _ID_LENGTHS and all(digit in "0123456789abcdef" for digit in ref.lower())


def _commit_of(repo: Repo, object_id: ObjectID, ref: str | None) -> Commit:
    found = repo[object_id] if object_id in repo.object_store else None
    while isinstance(found, Tag):
        found = repo[found.object[1]]
    if not isinstance(found, Commit):
        raise Refused(
            f"the repository has no commit {shown(ref or 'HEAD')}",
            "Set `workflow.ref` to a branch, a tag or a full commit id.",
        )
    return found


def _subtree(repo: Repo, commit: Commit, subdirectory: str) -> Tree:
    found: object = repo[commit.tree]
    for part in parts_of(subdirectory):
        name = part.encode()
        is_there = isinstance(found, Tree) and name in found and S_ISDIR(found[name][0])
        found = repo[found[name][1]] if is_there and isinstance(found, Tree) else None
    if not isinstance(found, Tree):
        raise Refused(
            f"the repository has no directory {shown(subdirectory)} at this commit",
            "Set `workflow.subdir` to the directory inside the repository that contains the workflow.",
        )
    return found


def _entries(repo: Repo, tree: Tree, above: str, notes: list[str]) -> Iterator[Entry]:
    for item in tree.iteritems():
        name = above + item.path.decode(errors="surrogateescape")
        if S_ISGITLINK(item.mode):
            notes.append(f"{shown(name)} is a submodule and stays empty: submodules are not fetched.")
            yield Directory(name)
            continue
        found = repo[item.sha]
        if S_ISDIR(item.mode) and isinstance(found, Tree):
            yield Directory(name)
            yield from _entries(repo, found, f"{name}/", notes)
        elif S_ISLNK(item.mode) and isinstance(found, Blob):
            yield Symlink(name, found.data.decode(errors="surrogateescape"))
        elif isinstance(found, Blob):
            if found.data.startswith(_LFS_POINTER):
                notes.append(f"{shown(name)} is a Git LFS pointer: its content is not fetched.")
            yield File(name, bool(item.mode & S_IXUSR), partial(iter, found.chunked))
        else:
            raise Refused(f"{shown(name)} has another type than the repository states")


class _Deadline:
    """Limits the total time of connections; the timeouts of sockets only limit the time between bytes."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_over = False
        self._sockets: list[socket.socket] = []
        self._timer = Timer(seconds, self._end)

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

    def watch(self, connected: socket.socket) -> None:
        """Close the connection at the deadline. Raises `Refused` if that has passed."""
        self._sockets.append(connected.dup())  # a copy, because TLS detaches the socket itself
        if self._is_over:
            raise self._refusal()

    def _end(self) -> None:
        self._is_over = True
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _refusal(self) -> Refused:
        return Refused(
            f"fetching from the git server takes longer than {self._seconds:g} seconds",
            "Submit the job again later, or send the workflow as a bundle (PUT /bundles); "
            "the operator sets the limit with JOBS_GIT_TIMEOUT_SECONDS.",
        )


class _Client(Urllib3HttpGitClient):
    """Connects to one server, through checked connections and within limits."""

    def __init__(self, address: str, settings: GitSettings, deadline: _Deadline) -> None:
        url = urlsplit(address)
        super().__init__(
            urlunsplit((url.scheme, url.netloc, "/", "", "")),
            pool_manager=_CheckedPoolManager(settings, deadline),
            config=ConfigDict(),
            quiet=True,
        )
        self._settings = settings
        self._bytes_left = settings.git_max_bytes

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
            self._spend(len(data))
            return data

        return response, counted

    def _spend(self, number: int) -> None:
        self._bytes_left -= number
        if self._bytes_left < 0:
            raise Refused(
                f"the git server sends more than {self._settings.git_max_bytes:,} bytes",
                "Send only the workflow, as a bundle (PUT /bundles); "
                "the operator sets the limit with JOBS_GIT_MAX_BYTES.",
            )


class _CheckedPoolManager(PoolManager):
    """Checks every requested URL, including those of redirects."""

    def __init__(self, settings: GitSettings, deadline: _Deadline) -> None:
        super().__init__(timeout=Timeout(connect=_CONNECT_SECONDS, read=_SILENCE_SECONDS))
        self._settings = settings
        self._deadline = deadline

    def urlopen(self, method: str, url: str, *arguments: Any, **keywords: Any) -> Any:
        # Parsed as urllib3 does it, because that is what it connects to. Git itself adds a query.
        check_git_address(parse_url(url)._replace(query=None, fragment=None).url, self._settings)
        return super().urlopen(method, url, *arguments, **keywords)

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        pool = super()._new_pool(scheme, host, port, request_context)
        kind = _CheckedHTTPSConnection if scheme == "https" else _CheckedHTTPConnection
        pool.ConnectionCls = partial(kind, self._settings, self._deadline)  # type: ignore[assignment]  # it is called only
        return pool


class _CheckedHTTPConnection(HTTPConnection):
    """Connects to an address that was checked, not to what the name resolves to a moment later."""

    def __init__(self, settings: GitSettings, deadline: _Deadline, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._settings = settings
        self._deadline = deadline

    def _new_conn(self) -> socket.socket:
        connected = _connect(self, self._settings)
        self._deadline.watch(connected)
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


@contextmanager
def _translating_git_errors(address: str, ref: str | None) -> Iterator[None]:
    """Turn the library's exceptions into `Refused`, with messages for the submitter."""
    host = urlsplit(address).hostname
    try:
        yield
    except (NotGitRepository, HTTPUnauthorized) as error:
        raise Refused(
            f"the host '{host}' has no public git repository at this address",
            "Check the address; send the workflow of a private repository as a bundle (PUT /bundles).",
        ) from error
    except (GitProtocolError, HTTPError, OSError, ValueError, LookupError, AssertionError) as error:
        raise Refused(
            f"the commit {shown(ref or 'HEAD')} can't be fetched from '{host}': {_reason(error)}",
            "Check the address and the ref, and submit the job again; "
            "or send the workflow as a bundle (PUT /bundles).",
        ) from error


def _reason(error: BaseException) -> str:
    """The innermost reason of the exception; the outer ones repeat URLs."""
    cause = error
    while (inner := getattr(cause, "reason", None) or cause.__cause__) and isinstance(inner, BaseException):
        cause = inner
    return shown(str(cause) or type(cause).__name__)
