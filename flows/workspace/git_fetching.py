"""Fetches one commit of a git repository, and says why if that fails."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from dulwich.client import HTTPUnauthorized
from dulwich.errors import GitProtocolError, NotGitRepository
from dulwich.objects import Commit, ObjectID, Tag
from dulwich.refs import Ref
from dulwich.repo import Repo
from urllib3.exceptions import HTTPError

from flows.contract.addresses import check_git_address
from flows.contract.untrusted_tree import Refused, shown
from flows.workspace.git_client import Client, Transfer
from flows.workspace.git_credentials import Credentials

_ID_LENGTHS = (40, 64)
_FORBIDDEN = "unexpected http resp 403"
"""The beginning of dulwich's message."""


def fetch(transfer: Transfer, address: str, ref: str | None, repo: Repo) -> Commit:
    """Fetch a commit into `repo`, without its history if the server allows that.

    Raises `Refused`, and other errors that `translating_git_errors` turns into it.
    """
    check_git_address(address, transfer.settings)
    return _fetch(transfer.client(address), urlsplit(address).path, ref, repo)


def _fetch(client: Client, path: str, ref: str | None, repo: Repo) -> Commit:
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


@contextmanager
def translating_git_errors(address: str, ref: str | None, credentials: Credentials) -> Iterator[None]:
    """Turn the library's exceptions into `Refused`, with messages for the submitter."""
    host = urlsplit(address).hostname
    try:
        yield
    except (NotGitRepository, HTTPUnauthorized) as error:
        raise _not_given(host, has_credential=credentials.has_one_for(address)) from error
    except (GitProtocolError, HTTPError, OSError, ValueError, LookupError, AssertionError) as error:
        if str(error).startswith(_FORBIDDEN):
            raise _not_given(host, has_credential=credentials.has_one_for(address)) from error
        raise Refused(
            f"the commit {shown(ref or 'HEAD')} can't be fetched from '{host}': {_reason(error)}",
            "Check the address and the ref, and submit the job again; "
            "or send the workflow as a bundle (PUT /bundles).",
        ) from error


def _not_given(host: str | None, *, has_credential: bool) -> Refused:
    """The server hides the repository, or there is none."""
    if has_credential:
        return Refused(
            f"the host '{host}' gives no git repository at this address to the credential of the service",
            "Check the address. The operator checks in JOBS_GIT_CREDENTIALS that the credential is valid and "
            "may read this repository.",
        )
    return Refused(
        f"the host '{host}' has no public git repository at this address",
        "Check the address. If the repository is private, ask the operator to set a credential for the host "
        "and the job's group (JOBS_GIT_CREDENTIALS), or send the workflow as a bundle (PUT /bundles).",
    )


def _reason(error: BaseException) -> str:
    """The innermost reason of the exception; the outer ones repeat URLs."""
    cause = error
    while (inner := getattr(cause, "reason", None) or cause.__cause__) and isinstance(inner, BaseException):
        cause = inner
    return shown(str(cause) or type(cause).__name__)
