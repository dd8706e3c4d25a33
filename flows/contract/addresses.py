"""Which git addresses a job may name.

These checks need nothing but the address itself and use no network, so the API can answer at once.
`flows.workspace.git` checks which IP addresses the host resolves to when it connects.
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
"""IPv4 addresses as a NAT64 gateway translates them (RFC 6052)."""

_PRIVATE_ALL_THE_SAME = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocols of the local network, and metadata of Oracle's cloud
        "168.63.129.16/32",  # metadata of Azure
        "fec0::/10",  # site-local (RFC 3879)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
"""What `ipaddress` takes for addresses of the internet, in some versions of Python or in all."""


class GitSettings(BaseSettings):
    """Which git repositories jobs may use, and limits on fetching them."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    git_allow_schemes: Annotated[tuple[Literal["https", "http"], ...], NoDecode] = Field(
        default=("https",), min_length=1, description="Allowed schemes of git addresses, separated by ','."
    )
    git_allow_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        max_length=1000,
        description="Allowed hosts of git repositories, separated by ','; `.example.org` allows every "
        "host below it. All public hosts are allowed when empty.",
    )
    git_allow_private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        max_length=1000,
        description="Hosts that may have private addresses, separated by ',' and written as in "
        "`JOBS_GIT_ALLOW_HOSTS`. None when empty.",
    )
    git_max_bytes: int = Field(
        default=1 << 28,
        ge=1 << 10,
        le=1 << 36,
        description="Maximum number of bytes that a git server may send.",
    )
    git_timeout_seconds: float = Field(
        default=120, gt=0, le=3600, description="Timeout of fetching a workflow from a git server."
    )

    @field_validator("git_allow_schemes", "git_allow_hosts", "git_allow_private_hosts", mode="before")
    @classmethod
    def _split_by_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part for item in value.split(",") if (part := item.strip().lower().rstrip(".")))

    def allows_private(self, host: str) -> bool:
        """Whether the host may have private addresses."""
        return _is_listed(host, self.git_allow_private_hosts)


class SourceSettings(GitSettings):
    """Where workflows may come from. Set the same values for the API and the worker."""

    workflow_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        max_length=100,
        description="Directories that may contain workflows (`workflow.path`), separated by ':'.",
    )

    @field_validator("workflow_roots", mode="before")
    @classmethod
    def _split_as_in_path(cls, value: object) -> object:
        return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value

    @field_validator("workflow_roots", mode="after")
    @classmethod
    def _absolute_roots(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        # Resolved now, because the working directory may change later.
        return tuple(path.absolute() for path in value)


class AddressRefused(Refused):
    """Workflows may not be fetched from this git address."""


def check_git_address(address: str, settings: GitSettings) -> None:
    """Raises `AddressRefused`. The message never repeats an address that contains a password."""
    url = _split_address(address)
    schemes = settings.git_allow_schemes
    if url.scheme not in schemes:
        raise AddressRefused(
            f"the scheme of the git address, '{url.scheme}', is not allowed",
            f"Use an address with {' or '.join(schemes)}, for example https://github.com/owner/repository; "
            "the operator sets the schemes with JOBS_GIT_ALLOW_SCHEMES.",
        )
    host = (url.hostname or "").rstrip(".")
    if not host or not url.path.strip("/"):
        raise _malformed("it has no host or no path to a repository")
    if not host.isascii():
        raise _malformed("its host name is not ASCII; write it as 'xn--…'")
    check_git_host(host, settings)


def check_git_host(host: str, settings: GitSettings) -> None:
    """Raises `AddressRefused` for a host that is not allowed, or whose name shows that it is private."""
    host = host.lower().rstrip(".")
    may_be_private = settings.allows_private(host)
    if settings.git_allow_hosts and not may_be_private and not _is_listed(host, settings.git_allow_hosts):
        raise AddressRefused(
            f"git repositories from the host '{host}' are not allowed",
            f"Use one of: {', '.join(settings.git_allow_hosts)}; "
            "the operator sets them with JOBS_GIT_ALLOW_HOSTS.",
        )
    literal = literal_address(host)
    is_private = host == "localhost" or host.endswith(".localhost") or (literal and not is_public(literal))
    if is_private and not may_be_private:
        raise not_public(host)


def is_public(address: IPAddress) -> bool:
    """Whether the address is reachable from the Internet, not one of a machine or of a private network."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    if any(address in network for network in _PRIVATE_ALL_THE_SAME):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def not_public(host: str) -> AddressRefused:
    """The error; it leaves out the address, which would reveal the internal network."""
    return AddressRefused(
        f"the host '{host}' has an address that is not public",
        "Use a public git server; the operator can allow a private one with JOBS_GIT_ALLOW_PRIVATE_HOSTS.",
    )


def _split_address(address: str) -> SplitResult:
    if not address.isprintable() or " " in address or "\\" in address:
        raise _malformed("it contains blanks, backslashes or unprintable characters")
    try:
        url = urlsplit(address)
        _ = url.port  # raises ValueError as well
    except ValueError:
        raise _malformed("it is not a valid URL") from None
    if "@" in url.netloc:
        raise AddressRefused(
            "the git address contains a user name or a password",
            "Remove them, and treat the password as compromised: it may be stored with the job. "
            "For a private repository, the operator sets a credential with JOBS_GIT_CREDENTIALS; or send the "
            "workflow as a bundle (PUT /bundles).",
        )
    if url.query or url.fragment:
        raise _malformed("it has a query or a fragment")
    return url


def _malformed(reason: str) -> AddressRefused:
    return AddressRefused(
        f"the git address can't be used: {reason}",
        "Write it as you would for `git clone`, for example https://github.com/owner/repository.",
    )


def literal_address(host: str) -> IPAddress | None:
    """The IP address that a host is written as, in any accepted notation (`127.1`, `0x7f000001`)."""
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
