"""Which git addresses a job may name.

What can be told from the address itself is told here, without a word to the network, so that the
facade answers at once. Where the name really leads is looked at when it is connected to
(`flows.workspace.git`).
"""

import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from flows.contract.untrusted_tree import Refused

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses as a NAT64 gateway has them (RFC 6052)."""


class GitSettings(BaseSettings):
    """Where git repositories may come from, and what they may cost."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    git_allow_schemes: Annotated[tuple[Literal["https", "http"], ...], NoDecode] = Field(
        default=("https",), min_length=1, description="Schemes that a git address may have, separated by ','."
    )
    git_allow_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        max_length=1000,
        description="Hosts that git repositories may come from, separated by ','; `.example.org` means "
        "every host below it. Any public host when empty.",
    )
    git_allow_private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        max_length=1000,
        description="Hosts that may have addresses of the machine's own network, separated by ',' and "
        "written as above. None when empty.",
    )
    git_max_bytes: int = Field(
        default=1 << 28, ge=1 << 10, le=1 << 36, description="The most bytes that a git server may send."
    )
    git_timeout_seconds: float = Field(
        default=120, gt=0, le=3600, description="How long it may take to get a workflow from a git server."
    )

    @field_validator("git_allow_schemes", "git_allow_hosts", "git_allow_private_hosts", mode="before")
    @classmethod
    def _split_by_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part for item in value.split(",") if (part := item.strip().lower().rstrip(".")))

    def allows_private(self, host: str) -> bool:
        """Whether the host may have addresses that are not public."""
        return _is_listed(host, self.git_allow_private_hosts)


class SourceSettings(GitSettings):
    """Where workflows may come from; the same for the facade and the worker."""

    workflow_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        max_length=100,
        description="Directories under which a workflow's `path` must lie, separated by ':'.",
    )

    @field_validator("workflow_roots", mode="before")
    @classmethod
    def _split_as_in_path(cls, value: object) -> object:
        return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value

    @field_validator("workflow_roots", mode="after")
    @classmethod
    def _absolute_roots(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        # From the start: nothing may depend on a working directory that changes later.
        return tuple(path.absolute() for path in value)


class AddressRefused(Refused):
    """No workflow may come from this git address."""


def check_git_address(address: str, settings: GitSettings) -> None:
    """Raises `AddressRefused`; never repeats an address that holds a password."""
    url = _split_address(address)
    schemes = settings.git_allow_schemes
    if url.scheme not in schemes:
        raise AddressRefused(
            f"the scheme of the git address, '{url.scheme}', is not allowed here",
            f"Use an address with {' or '.join(schemes)}, as in https://github.com/owner/repository; "
            "the operator sets the schemes with JOBS_GIT_ALLOW_SCHEMES.",
        )
    host = (url.hostname or "").rstrip(".")
    if not host or not url.path.strip("/"):
        raise _malformed("it has no host, or no path to a repository")
    if not host.isascii():
        raise _malformed("write the name of its host in ASCII ('xn--…')")
    check_git_host(host, settings)


def check_git_host(host: str, settings: GitSettings) -> None:
    """Raises `AddressRefused` for a host that is not listed, or that says itself that it is not public."""
    host = host.lower().rstrip(".")
    may_be_private = settings.allows_private(host)
    if settings.git_allow_hosts and not may_be_private and not _is_listed(host, settings.git_allow_hosts):
        raise AddressRefused(
            f"the host '{host}' is not one that git repositories may come from",
            f"Use one of: {', '.join(settings.git_allow_hosts)}; "
            "the operator sets them with JOBS_GIT_ALLOW_HOSTS.",
        )
    literal = literal_address(host)
    is_private = host == "localhost" or host.endswith(".localhost") or (literal and not is_public(literal))
    if is_private and not may_be_private:
        raise not_public(host)


def is_public(address: IPAddress) -> bool:
    """Whether the address is one of the Internet, rather than of a machine or a network of its own."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def not_public(host: str) -> AddressRefused:
    """The refusal; it does not tell the address, which would be news of the network inside."""
    return AddressRefused(
        f"the host '{host}' has an address that is not public",
        "Use a public git server; the operator may allow another one with JOBS_GIT_ALLOW_PRIVATE_HOSTS.",
    )


def _split_address(address: str) -> SplitResult:
    if not address.isprintable() or " " in address or "\\" in address:
        raise _malformed("it holds blanks, backslashes or characters that can't be printed")
    try:
        url = urlsplit(address)
        _ = url.port  # raises ValueError as well
    except ValueError:
        raise _malformed("it is no URL that can be read") from None
    if "@" in url.netloc:
        raise AddressRefused(
            "the git address holds a user name or a password",
            "Leave them out, and regard the password as known: it is stored with the job. "
            "Repositories that need one can be sent as a bundle (PUT /bundles).",
        )
    if url.query or url.fragment:
        raise _malformed("it has a query or a fragment")
    return url


def _malformed(reason: str) -> AddressRefused:
    return AddressRefused(
        f"the git address can't be used: {reason}",
        "Write it as for `git clone`, for example https://github.com/owner/repository.",
    )


def literal_address(host: str) -> IPAddress | None:
    """The address that a host is written as, in any spelling that systems take (`127.1`, `0x7f000001`)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _is_listed(host: str, hosts: Sequence[str]) -> bool:
    return any(host == listed or (listed.startswith(".") and host.endswith(listed)) for listed in hosts)
