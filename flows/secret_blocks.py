"""Reads the secrets of a job from Prefect's blocks, when the job starts.

SecretUnusable   a secret is missing or has no usable value: the operator has to act
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

from flows.contract.secrets import SecretSettings, check_secrets

SHORTEST = 4
"""In characters. Replacing a shorter value in logs would replace half of what they say."""

LONGEST = 10_000
"""In bytes; a longer value would not be found in the pieces in which logs are read."""

_SECRET = "secret"
"""The slug of the block type."""

_TOKENS = ("value", "token", "access_token", "password")
"""Fields that hold the secret of a block: of Secret, and of the credentials of git hosts."""

_MAKE = "Ask the operator to make the block in Prefect (Blocks), and resume the job."
_CORRECT = (
    "Ask the operator to correct the block in Prefect, and resume the job. "
    "The service can keep neither a very short nor a very long value out of logs."
)


class SecretUnusable(Exception):
    """A block or a file is missing, or has no usable value. The message never contains the value."""

    def __init__(self, message: str, resolution: str) -> None:
        super().__init__(message)
        self.resolution = resolution


@dataclass(frozen=True, slots=True)
class Blocks:
    """Prefect's blocks, as the jobs of one group may use them."""

    client: SyncPrefectClient
    group: str

    def secrets(self, names: Mapping[str, str], settings: SecretSettings) -> dict[str, str]:
        """Values of Secret blocks; both by variable. Raises `SecretRefused` and `SecretUnusable`."""
        check_secrets(names, self.group, settings)
        return {variable: self.text_of(_SECRET, name) for variable, name in names.items()}

    def text_of(self, block_type: str, name: str) -> str:
        """The secret of one block. Raises `SecretUnusable`."""
        block = f"the block '{block_type}/{name}'"
        try:
            data = self.client.read_block_document_by_name(name, block_type).data
        except ObjectNotFound:
            raise SecretUnusable(f"{block} is not in Prefect", _MAKE) from None
        value = next((data[field] for field in _TOKENS if data.get(field)), "")
        text = value if isinstance(value, str) else json.dumps(value)
        if len(text.strip()) < SHORTEST or len(text.encode()) > LONGEST or "\0" in text:
            raise SecretUnusable(
                f"{block} has no usable value: it needs {SHORTEST} characters or more, at most "
                f"{LONGEST:,} bytes, and no NUL",
                _CORRECT,
            )
        return text
