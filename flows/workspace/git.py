"""Workflows from git repositories, without the `git` program: fetch, resolve, check out.

`flows.contract.addresses` says which addresses a job may name, `flows.contract.untrusted_tree` what
may be in the tree. This module checks what only a connection shows: every address that the host
name resolves to must be public, and the connection goes to the address that was checked. The same
holds for redirects. Proxies, netrc files and git's configuration are ignored.
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
    """What limits a checkout."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A commit whose files are there."""

    commit: str
    notes: tuple[str, ...]
    """What is not as in the repository."""


def check_out(
    address: str,
    ref: str | None,
    subdirectory: str,
    directory: Path,
    settings: CheckoutSettings,
    left_out: Container[str] = (),
) -> Checkout:
    """Write the files of a commit to `directory`, which must not exist; nothing of git stays behind.

    Raises `Refused`.
    """
    check_git_address(address, settings)
    repository = directory.with_suffix(".git")
    shutil.rmtree(repository, ignore_errors=True)
    try:
        with _told_as_refusal(address, ref), Repo.init_bare(repository, mkdir=True) as repo:
            commit = _fetch(address, ref, repo, settings)
            notes: list[str] = []
            tree = _subtree(repo, commit, subdirectory)
            write_tree(_entries(repo, tree, "", notes), directory, settings, left_out)
            return Checkout(commit.id.decode(), tuple(notes))
    finally:
        shutil.rmtree(repository, ignore_errors=True)


def _fetch(address: str, ref: str | None, repo: Repo, settings: GitSettings) -> Commit:
    """The commit, alone where the server gives it alone."""
    with _Deadline(settings.git_timeout_seconds) as deadline:
        return _fetch_before(deadline, address, ref, repo, settings)


def _fetch_before(
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
                "Set `workflow.ref` to a branch, a tag or a whole commit id.",
            )
        wanted[:] = [found]
        return wanted

    def want_all(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        return [found for name, found in refs.items() if name.startswith((b"refs/heads/", b"refs/tags/"))]

    path = urlsplit(address).path
    try:
        client.fetch(path, repo, determine_wants=want, depth=1)
    except GitProtocolError:
        # Servers may refuse to give a commit that no branch or tag points to. It may lie behind one.
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
            "Set `workflow.ref` to a branch, a tag or a whole commit id.",
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
            "Set `workflow.subdir` to the directory inside the repository that holds the workflow.",
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
                notes.append(f"{shown(name)} is a pointer of Git LFS: its content is not fetched.")
            yield File(name, bool(item.mode & S_IXUSR), partial(iter, found.chunked))
        else:
            raise Refused(f"{shown(name)} is not what the repository says that it is")


class _Deadline:
    """Ends connections that take too long in all, however often a byte comes: time limits are of silence."""

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
        """Raises `Refused` when it is too late."""
        self._sockets.append(connected.dup())  # TLS takes the socket itself away
        if self._is_over:
            raise self._refusal()

    def _end(self) -> None:
        self._is_over = True
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _refusal(self) -> Refused:
        return Refused(
            f"the git server takes longer than {self._seconds:g} seconds",
            "Submit the job again later, or send the workflow as a bundle (PUT /bundles); "
            "the operator sets the limit with JOBS_GIT_TIMEOUT_SECONDS.",
        )


class _Client(Urllib3HttpGitClient):
    """Speaks with one server, through connections that are looked at, within limits."""

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
                "the git server speaks the old 'dumb' protocol only",
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
                "Send the workflow alone, as a bundle (PUT /bundles); "
                "the operator sets the limit with JOBS_GIT_MAX_BYTES.",
            )


class _CheckedPoolManager(PoolManager):
    """Looks at every URL that is asked for, those of redirects included."""

    def __init__(self, settings: GitSettings, deadline: _Deadline) -> None:
        super().__init__(timeout=Timeout(connect=_CONNECT_SECONDS, read=_SILENCE_SECONDS))
        self._settings = settings
        self._deadline = deadline

    def urlopen(self, method: str, url: str, *arguments: Any, **keywords: Any) -> Any:
        # As this library reads the URL: it is what it connects to. A query is git's own.
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
    """Goes to an address that was looked at, and not to what the name leads to a moment later."""

    def __init__(self, settings: GitSettings, deadline: _Deadline, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._settings = settings
        self._deadline = deadline

    def _new_conn(self) -> socket.socket:
        connected = _connect(self, self._settings)
        self._deadline.watch(connected)
        return connected


class _CheckedHTTPSConnection(_CheckedHTTPConnection, HTTPSConnection):
    """The certificate is still checked against the host's name."""


def _connect(connection: HTTPConnection, settings: GitSettings) -> socket.socket:
    """A connection to one of the host's addresses, if all of them are public."""
    host = connection.host.strip("[]")
    found = socket.getaddrinfo(host, connection.port, type=socket.SOCK_STREAM)
    addresses = [str(place[0]).partition("%")[0] for *_, place in found]
    may_be_private = settings.allows_private(host.lower().rstrip("."))
    if not may_be_private and not all(is_public(ipaddress.ip_address(address)) for address in addresses):
        raise not_public(host)
    last_error = OSError("the name leads nowhere")
    for address in addresses:
        try:
            return create_connection(
                (address, connection.port), connection.timeout, socket_options=connection.socket_options
            )
        except OSError as error:
            last_error = error
    raise last_error


@contextmanager
def _told_as_refusal(address: str, ref: str | None) -> Iterator[None]:
    """What the library raises, in words for the submitter."""
    host = urlsplit(address).hostname
    try:
        yield
    except (NotGitRepository, HTTPUnauthorized) as error:
        raise Refused(
            f"the host '{host}' has no git repository there that everybody may read",
            "Look at the address; send the workflow of a private repository as a bundle (PUT /bundles).",
        ) from error
    except (GitProtocolError, HTTPError, OSError, ValueError, LookupError, AssertionError) as error:
        raise Refused(
            f"the commit {shown(ref or 'HEAD')} can't be fetched from '{host}': {_reason(error)}",
            "Look at the address and the ref, and submit the job again; "
            "or send the workflow as a bundle (PUT /bundles).",
        ) from error


def _reason(error: BaseException) -> str:
    """The innermost reason that the library knows; the outer ones repeat URLs."""
    cause = error
    while (inner := getattr(cause, "reason", None) or cause.__cause__) and isinstance(inner, BaseException):
        cause = inner
    return shown(str(cause) or type(cause).__name__)
