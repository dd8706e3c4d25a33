"""The credentials that the operator binds to git hosts, for private repositories.

A credential is sent over https only, to the host and below the path that it is bound to, and never after
a redirect to another place. It is read when a server is first asked.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from urllib3.util import parse_url

from flows.contract.secrets import EVERY_GROUP
from flows.secret_blocks import SecretUnusable

_HTTPS = 443
_USERS = {"gitlab-credentials": "oauth2", "bitbucket-credentials": "x-token-auth"}
_USER = "x-access-token"
"""What GitHub wants with a token; most other hosts accept any name."""


def _place(value: str) -> str:
    if not re.fullmatch(r"[\w.-]+(:\d+)?(/[\w.~-]+)*", value):
        raise ValueError("write it as `host`, `host/owner` or `host/owner/repository`")
    return value


class GitCredential(BaseModel):
    """One credential, and the groups whose jobs use it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: str | None = Field(default=None, pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")
    """A block of Prefect, as `type/name`: `secret/git-token`, `github-credentials/lab`."""
    token_file: Path | None = None
    """A file on the worker's machine that contains the token."""
    username: str | None = Field(default=None, pattern=r"^[^:\s]+$")
    """What the host wants as a user name; depends on the type of the block when absent."""
    groups: tuple[str, ...] = Field(min_length=1)
    """The groups whose jobs use it; `*` for every group."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.block is None) == (self.token_file is None):
            raise ValueError("give exactly one of block and token_file")
        return self


class GitCredentialSettings(BaseSettings):
    """The operator's credentials for private git repositories."""

    model_config = SettingsConfigDict(
        env_prefix="JOBS_",
        hide_input_in_errors=True,  # a token that was put here by mistake must not appear in the error
    )

    git_credentials: dict[Annotated[str, AfterValidator(_place)], GitCredential] = Field(
        default={},
        description="Credentials for private git repositories, by host or `host/owner`, as JSON: "
        '`{"github.com/lab": {"block": "secret/git-token", "groups": ["genomics"]}}`. Instead of `block`, '
        "`token_file` names a file on the worker; `username` is optional. They are sent over https only.",
    )


class Credentials:
    """The credentials of the jobs of one group."""

    def __init__(
        self, bound: Mapping[str, GitCredential], group: str, read_block: Callable[[str, str], str]
    ) -> None:
        """`read_block` returns the secret of a block, by type and name. It raises `SecretUnusable`."""
        self._bound = {
            place: each for place, each in bound.items() if not {group, EVERY_GROUP}.isdisjoint(each.groups)
        }
        self._read_block = read_block
        self._headers: dict[str, str] = {}

    def has_one_for(self, url: str) -> bool:
        return self._place_of(url) is not None

    def header_for(self, url: str) -> str | None:
        """The `Authorization` header for a request, if one may be sent. Raises `SecretUnusable`."""
        place = self._place_of(url)
        if place is not None and place not in self._headers:
            self._headers[place] = self._header(self._bound[place])
        return None if place is None else self._headers[place]

    def _place_of(self, url: str) -> str | None:
        """The longest place that the URL is below."""
        parsed = parse_url(url)
        path = unquote(parsed.path or "").split("/")
        # Servers may resolve what leads out of the place: `owner/%2e%2e/another`.
        if parsed.scheme != "https" or ".." in path or any("\\" in part for part in path):
            return None
        host = (parsed.host or "").lower().rstrip(".")
        steps = [f"{host}:{parsed.port or _HTTPS}", *(part for part in path if part)]
        below = [place for place in self._bound if _steps(place) == steps[: len(_steps(place))]]
        return max(below, key=len, default=None)

    def _header(self, credential: GitCredential) -> str:
        if credential.token_file is not None:
            kind, token = "", _read(credential.token_file)
        else:
            kind, _, name = str(credential.block).partition("/")
            token = self._read_block(kind, name).strip()
        user = credential.username or _USERS.get(kind, _USER)
        return f"Basic {b64encode(f'{user}:{token}'.encode()).decode()}"


NO_CREDENTIALS = Credentials({}, "", lambda _kind, _name: "")


def _steps(place: str) -> list[str]:
    host, *path = place.split("/")
    return [host.lower() if ":" in host else f"{host.lower()}:{_HTTPS}", *path]


def _read(file: Path) -> str:
    try:
        token = file.read_text().strip()
    except (OSError, ValueError):
        token = ""
    if not token:
        raise SecretUnusable(
            f"the token file '{file}' of a git credential can't be read, or is empty",
            "Ask the operator to correct the file or JOBS_GIT_CREDENTIALS, and resume the job.",
        )
    return token
