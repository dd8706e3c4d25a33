"""The passwords of the embedded stack: made once, and readable by the service's user only."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

_USER = "operator"
_PRIVATE = 0o600
_PASSWORD_BYTES = 24


class Credentials:
    """Files below `secrets/` of the home directory. They are created when they are missing."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._directory = home / "secrets"
        self.prefect_file = self._directory / "prefect"
        """User and password of the Prefect server, as `PREFECT_API_AUTH_STRING` takes them."""
        self.database_file = self._directory / "database"
        """The password of PostgreSQL, in the format that its clients read (`PGPASSFILE`)."""

    def prefect_auth(self, environment: Mapping[str, str]) -> str:
        """User and password of the Prefect server: the operator's own, or else the generated ones."""
        for variable in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"):
            if environment.get(variable):
                return environment[variable]
        return self._made(self.prefect_file, f"{_USER}:{_new_password()}")

    def database_password(self, user: str) -> str:
        return self._made(self.database_file, f"*:*:*:{user}:{_new_password()}").rpartition(":")[2]

    def write_profile(self, api_url: str, auth_string: str) -> None:
        """Write a profile, with which the `prefect` command needs only `PREFECT_HOME`."""
        lines = [
            'active = "local"',
            "",
            "[profiles.local]",
            f'PREFECT_API_URL = "{api_url}"',
            f'PREFECT_API_AUTH_STRING = "{_escaped(auth_string)}"',
        ]
        file = self._home / "prefect" / "profiles.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_private(file, "\n".join(lines) + "\n")

    def _made(self, file: Path, new: str) -> str:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        if not file.exists():
            _write_private(file, f"{new}\n")
        file.chmod(_PRIVATE)
        return file.read_text().strip()


def _new_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _write_private(file: Path, content: str) -> None:
    """Replace the file at once, so that it is never readable by others, and never half written."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
    temporary.replace(file)
