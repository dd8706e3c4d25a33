"""Credentials of the bucket for one job, from the facade: the task of a job has none of its own."""

import os
import time
from datetime import datetime
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from obstore.store import S3Credential

PAUSE_SECONDS = 2.0
_GIVE_UP_SECONDS = 300.0
"""As long as the rest of a flow waits for a service that is away."""

_TIMEOUT_SECONDS = 30.0


class FromGateway:
    """obstore calls it, and again shortly before credentials expire. The token is that for Prefect."""

    def __init__(self, url: str) -> None:
        user, _, token = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
        self._url = url
        self._auth = (user, token)

    def __call__(self) -> "S3Credential":
        """Raises httpx's errors if the facade refuses, or stays away."""
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while True:
            try:
                response = httpx.get(self._url, auth=self._auth, timeout=_TIMEOUT_SECONDS)
                return _credentials_in(response.raise_for_status())
            except httpx.HTTPError as error:
                is_refusal = isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error
                if is_refusal or time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_SECONDS)


def _credentials_in(response: httpx.Response) -> "S3Credential":
    found = response.json()
    return {
        "access_key_id": found["access_key_id"],
        "secret_access_key": found["secret_access_key"],
        "token": found["token"],
        "expires_at": datetime.fromisoformat(found["expires_at"]),
    }
