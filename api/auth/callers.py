"""Who may do what: the caller of a request, and what is open to everybody. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any

from fastapi import Depends, Request

ALL_GROUPS = "*"

OPEN_PATHS = frozenset({"/livez", "/readyz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})
"""Asked by load balancers and readers of the documentation. Every other path needs a token."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL_NAME = "localhost"


class TokenScope(StrEnum):
    """What a token is good for; each includes those before it."""

    READ = "read"
    """See the jobs of its groups, their logs and outputs."""
    SUBMIT = "submit"
    """Submit to its groups, and change their jobs."""
    ADMIN = "admin"
    """Operate the service."""

    def includes(self, other: "TokenScope") -> bool:
        scopes = list(TokenScope)
        return scopes.index(other) <= scopes.index(self)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, and what may be answered."""

    name: str
    scope: TokenScope
    groups: frozenset[str] | None
    """None for all groups, those that are deployed later included."""

    def may_see(self, group: str) -> bool:
        return self.groups is None or group in self.groups

    @property
    def may_operate(self) -> bool:
        """May see what concerns all groups at once, such as the metrics."""
        return self.groups is None or self.scope is TokenScope.ADMIN


ANYONE = Caller("anyone", TokenScope.ADMIN, None)
"""Who calls while tokens are off."""


def scope_needed(method: str) -> TokenScope:
    """Seeing needs `read`; all else `submit`, so that a new route is never open by oversight."""
    return TokenScope.READ if method in _SAFE_METHODS else TokenScope.SUBMIT


def is_loopback(host: str) -> bool:
    """Whether this address, or name, is of the machine itself and can't be reached from another."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == _LOCAL_NAME


def declare_tokens(document: dict[str, Any]) -> None:
    """Says in an OpenAPI document which operations need a token."""
    document["components"]["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "`python -m api tokens create` makes one.",
        }
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in OPEN_PATHS else [{"token": []}]


async def caller_of(request: Request) -> Caller:
    """Whom `api.auth.middleware` has let in. Without it nobody is, rather than anyone."""
    state: Mapping[str, Any] = request.scope.get("state", {})
    caller: Caller = state["caller"]
    return caller


# A dependency that is no coroutine would cost each request a thread.
WithCaller = Annotated[Caller, Depends(caller_of)]
