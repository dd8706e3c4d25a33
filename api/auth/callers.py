"""The caller of a request and its permissions, and the paths that need no token. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any

from fastapi import Depends, Request

ALL_GROUPS = "*"

OPEN_PATHS = frozenset({"/livez", "/readyz", "/docs", "/openapi.json"})
"""For load balancers and readers of the documentation. Every other path needs a token."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL_NAME = "localhost"


class TokenScope(StrEnum):
    """What a token permits; each scope includes the ones before it."""

    READ = "read"
    """See the jobs of its groups, their logs and outputs."""
    SUBMIT = "submit"
    """Submit jobs to its groups, and cancel or resume them."""
    ADMIN = "admin"
    """Remove jobs, and read the metrics."""

    def includes(self, other: "TokenScope") -> bool:
        scopes = list(TokenScope)
        return scopes.index(other) <= scopes.index(self)


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request, and what it may see and do."""

    name: str
    scope: TokenScope
    groups: frozenset[str] | None
    """None for all groups, including those deployed later."""

    def may_see(self, group: str) -> bool:
        return self.groups is None or group in self.groups

    @property
    def may_operate(self) -> bool:
        """Whether it may see data about all groups, such as the metrics."""
        return self.groups is None or self.scope is TokenScope.ADMIN


ANYONE = Caller("anyone", TokenScope.ADMIN, None)
"""The caller of every request while tokens are off."""


def scope_needed(method: str) -> TokenScope:
    """`read` for safe methods, else `submit`: so no new route is open by mistake."""
    return TokenScope.READ if method in SAFE_METHODS else TokenScope.SUBMIT


def is_loopback(host: str) -> bool:
    """Whether this address or name is loopback: it can't be reached from another machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == _LOCAL_NAME


def declare_tokens(document: dict[str, Any]) -> None:
    """Declares in an OpenAPI document which operations need a token."""
    document["components"]["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "Created with `python -m api tokens create`.",
        }
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in OPEN_PATHS else [{"token": []}]


async def caller_of(request: Request) -> Caller:
    """The caller that `api.auth.middleware` has authenticated. Fails if the middleware is missing."""
    state: Mapping[str, Any] = request.scope.get("state", {})
    caller: Caller = state["caller"]
    return caller


# A coroutine, because other dependencies take a thread for each request.
WithCaller = Annotated[Caller, Depends(caller_of)]
