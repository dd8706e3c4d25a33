"""Authenticates and authorizes each request before its body is read.

It is middleware rather than a dependency of routes, so that it protects every new route too.
"""

import math
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth.callers import ANYONE, OPEN_PATHS, SAFE_METHODS, Caller, is_loopback, scope_needed
from api.auth.rates import Rates
from api.auth.tokens import Expired, TokenSource, TokensUnreadable, find
from api.web.problems import (
    Forbidden,
    ProblemError,
    TokensDamaged,
    TooManyRequests,
    Unauthorized,
    problem_response,
)
from flows.contract.job_tokens import GATEWAY_PATH

_MAKE_ONE = (
    "Send a valid token as `Authorization: Bearer TOKEN`; in a browser, it is the password. "
    "The operator creates tokens with `python -m api tokens create`."
)


class AuthMiddleware:
    """Stores the `Caller` in the state of the request."""

    def __init__(self, app: ASGIApp, tokens: TokenSource | None, rates: Rates | None) -> None:
        """Without `tokens`, requests from this machine are accepted, and no others."""
        self._app = app
        self._tokens = tokens
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            await self._app(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith(f"{GATEWAY_PATH}/"):
            await self._app(scope, receive, send)  # tasks of jobs have tokens of their own
        elif scope["type"] == "http":
            await self._authorize(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})  # there are no websocket routes

    async def _authorize(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            caller = self._caller(scope)
            _check_scope(caller, scope["method"])
        except _Refused as refused:
            answer = problem_response(
                refused.error.problem(scope["path"]), {**refused.error.headers, **refused.headers}
            )
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        """Raises `_Refused`."""
        if self._tokens is None:
            _check_is_local(scope)
            scope.setdefault("state", {})["caller"] = ANYONE
            self._check_rate(f"address {_address(scope)}")
            return ANYONE
        secret = _token_of(scope)
        if secret is None:
            self._check_rate(f"address {_address(scope)}")
            raise _Refused(Unauthorized("This request has no token.", _MAKE_ONE), _first_challenge(scope))
        try:
            found = find(secret, self._tokens.read(), datetime.now(UTC))
        except TokensUnreadable as error:
            raise _Refused(
                TokensDamaged(
                    "The service can't read its tokens, so it rejects all requests.",
                    "Ask the operator to repair the tokens: the service's log says what is wrong.",
                )
            ) from error
        if isinstance(found, Caller):
            scope.setdefault("state", {})["caller"] = found  # logged for rejected requests too
            self._check_rate(f"token {found.name}")
            return found
        self._check_rate(f"address {_address(scope)}")
        detail = (
            f"The token '{found.name}' has expired."
            if isinstance(found, Expired)
            else "The token is unknown."
        )
        raise _Refused(Unauthorized(detail, _MAKE_ONE), _challenge(error="invalid_token"))

    def _check_rate(self, name: str) -> None:
        seconds = self._rates.seconds_to_wait(name) if self._rates else 0
        if seconds:
            wait = math.ceil(seconds)
            raise _Refused(
                TooManyRequests(
                    "Too many requests: the rate limit is exceeded.",
                    f"Try again in {wait} seconds. Poll less often, or request larger pages.",
                ),
                {"Retry-After": str(wait)},
            )


class _Refused(Exception):
    """Rejects the request."""

    def __init__(self, error: ProblemError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error.detail)
        self.error = error
        self.headers = headers or {}


def _check_scope(caller: Caller, method: str) -> None:
    needed = scope_needed(method)
    if not caller.scope.includes(needed):
        raise _Refused(
            Forbidden(
                f"The token '{caller.name}' has the scope '{caller.scope}'; this request needs '{needed}'.",
                f"Ask the operator for a token with the scope '{needed}'.",
            ),
            _challenge(error="insufficient_scope", scope=needed),
        )


def _check_is_local(scope: Scope) -> None:
    """Rejects requests that do not come from this machine, however the server was started.

    - The address at which the request arrived must be loopback. It is not if the server listens
      elsewhere than `JOBS_API_HOST` says.
    - The `Host` must be loopback. With DNS rebinding, a browser sends the host of a web page whose
      name resolves to loopback.
    - The `Origin`, if there is one, must be loopback: any page can send a form to another site.
    """
    headers = Headers(scope=scope)
    server = scope.get("server")
    host = headers.get("host", "").rpartition("@")[2]
    name = host.rpartition(":")[0] if _has_port(host) else host
    origin = headers.get("origin")
    arrived_here = server is None or not _is_address(server[0]) or is_loopback(server[0])
    sent_from_here = origin is None or is_loopback(urlsplit(origin).hostname or "")
    if not (arrived_here and is_loopback(name) and sent_from_here):
        raise _Refused(
            Forbidden(
                "Tokens are off, so this service only answers requests from its own machine to a loopback "
                "address.",
                "Use http://127.0.0.1 or http://localhost on that machine, or ask the operator to create "
                "tokens with `python -m api tokens create`.",
            )
        )


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and (host.count(":") == 1 or "]:" in host)


def _is_address(host: str) -> bool:
    """Whether this is an address. If not, it is the path of a socket, which is local."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _token_of(scope: Scope) -> str | None:
    """Of `Bearer TOKEN`; or the password of `Basic`, with any user name, for people with a browser.

    Browsers also send that password when a page of another site sends them here, and so it only counts
    for requests that change nothing.
    """
    scheme, _, value = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip() or None
    if scheme.lower() == "basic" and scope["method"] in SAFE_METHODS:
        try:
            return b64decode(value, validate=True).decode().partition(":")[2] or None
        except ValueError:
            return None
    return None


def _first_challenge(scope: Scope) -> dict[str, str]:
    """To a browser that shows a page: it asks for a user name and a password."""
    challenge = _challenge()
    is_page = "text/html" in Headers(scope=scope).get("accept", "")
    if is_page and scope["method"] in SAFE_METHODS:
        challenge["WWW-Authenticate"] += ', Basic realm="jobs: any user name, and a token", charset="UTF-8"'
    return challenge


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _challenge(**parameters: str) -> dict[str, str]:
    """RFC 6750, section 3."""
    quoted = "".join(f', {name}="{value}"' for name, value in parameters.items())
    return {"WWW-Authenticate": f'Bearer realm="jobs"{quoted}'}
