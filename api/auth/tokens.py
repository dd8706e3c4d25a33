"""Bearer tokens: created once, stored as hashes, compared in constant time.

A token is 256 random bits, so it can't be guessed, and a plain SHA-256 protects it. Slow hashes are for
passwords that people choose, and would delay every request.
"""

import fcntl
import hmac
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from api.auth.callers import ALL_GROUPS, Caller, TokenScope

PREFIX = "jobs_"
"""So that scanners recognize a token that was committed by mistake."""

_RANDOM_BYTES = 32


class TokensUnreadable(Exception):
    """The tokens can't be read. The message says why, and what to do."""


class TokenRefused(Exception):
    """The token can't be created or revoked. The message says why, and what to do."""


class Token(BaseModel):
    """What is stored about a token: everything but the token itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=100)
    groups: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of groups, or `*` for all."""
    scope: TokenScope
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None

    def has_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now

    @property
    def caller(self) -> Caller:
        groups = None if ALL_GROUPS in self.groups else frozenset(self.groups)
        return Caller(self.name, self.scope, groups)


class TokenList(BaseModel):
    """The JSON content of the file, or of the variable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(default=1, ge=1, le=1)
    tokens: tuple[Token, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> "TokenList":
        names = [token.name for token in self.tokens]
        if len(names) != len(set(names)):
            raise ValueError("two tokens have the same name")
        return self


class TokenSource(Protocol):
    """Where the tokens are stored."""

    def read(self) -> Sequence[Token]:
        """The current tokens. Raises `TokensUnreadable`."""


class TokenVariable:
    """Tokens in `JOBS_TOKENS`, for platforms that pass secrets as variables."""

    def __init__(self, content: str) -> None:
        self._content = content

    def read(self) -> Sequence[Token]:
        return _decode(self._content, "JOBS_TOKENS")


class TokenFile:
    """Tokens in a file, which is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._tokens: Sequence[Token] = ()

    def read(self) -> Sequence[Token]:
        try:
            status = self._path.stat()
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise TokensUnreadable(
                    f"Users other than its owner can write {self._path}, and could add tokens. "
                    f"Check its content, then run: chmod 600 {self._path}"
                )
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._tokens = _decode(self._path.read_text(), str(self._path))
                self._seen = seen
        except OSError as error:
            raise TokensUnreadable(
                f"JOBS_TOKENS_FILE can't be read ({error}). "
                "Create it with `python -m api tokens create NAME --group GROUP`."
            ) from error
        return self._tokens

    def create(
        self, name: str, groups: Sequence[str], scope: TokenScope, expires_at: datetime | None = None
    ) -> str:
        """A new token, which is not stored. Raises `TokenRefused` and `TokensUnreadable`."""
        secret = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        try:
            token = Token(
                name=name,
                groups=tuple(groups),
                scope=scope,
                sha256=digest_of(secret),
                created_at=datetime.now(UTC).replace(microsecond=0),
                expires_at=expires_at,
            )
        except ValidationError as error:
            raise TokenRefused(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}.") from error
        with self._alone():
            tokens = self.read() if self._path.exists() else ()
            if any(token.name == name for token in tokens):
                raise TokenRefused(f"A token '{name}' already exists. Revoke it first, or use another name.")
            self._write((*tokens, token))
        return secret

    def revoke(self, name: str) -> None:
        """Rejects the token from the next request on. Raises `TokenRefused` and `TokensUnreadable`."""
        with self._alone():
            tokens = self.read()
            kept = tuple(token for token in tokens if token.name != name)
            if len(kept) == len(tokens):
                names = ", ".join(token.name for token in tokens) or "(none)"
                raise TokenRefused(f"There is no token '{name}'. Tokens: {names}.")
            self._write(kept)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Locks the file: of two commands at once, one would undo the other, even a revocation."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, tokens: Iterable[Token]) -> None:
        """Replaces the file atomically: a reader never sees half of it."""
        content = TokenList(tokens=tuple(tokens)).model_dump(mode="json", exclude_none=True)
        # mkstemp makes a file that only its owner can read and write.
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(content, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@dataclass(frozen=True, slots=True)
class Expired:
    """A token that has expired."""

    name: str


def find(secret: str, tokens: Iterable[Token], now: datetime) -> Caller | Expired | None:
    """The caller that `secret` belongs to; none if it is unknown.

    Every hash is compared in full, so the time depends on the number of tokens and not on `secret`.
    """
    digest = digest_of(secret)
    found: Token | None = None
    for token in tokens:
        if hmac.compare_digest(digest, token.sha256):
            found = token
    if found is None:
        return None
    return Expired(found.name) if found.has_expired(now) else found.caller


def digest_of(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _decode(content: str, name: str) -> Sequence[Token]:
    try:
        return TokenList.model_validate_json(content).tokens
    except ValidationError as error:
        # Without the input, which may be a secret.
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise TokensUnreadable(
            f"{name} does not hold a valid list of tokens ({where}: {first['msg']}). "
            "Use `python -m api tokens` to write it."
        ) from error
