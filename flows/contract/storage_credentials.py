"""Credentials of the bucket for one job, from the facade: the task of a job has none of its own."""

import os
from datetime import datetime
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from obstore.store import S3Credential

_TIMEOUT_SECONDS = 30.0
_ATTEMPTS = 5


class FromGateway:
    """obstore calls it, and again shortly before credentials expire. The token is that for Prefect."""

    def __init__(self, url: str) -> None:
        user, _, token = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
        self._url = url
        self._auth = (user, token)

    def __call__(self) -> "S3Credential":
        """Raises httpx's errors."""
        transport = httpx.HTTPTransport(retries=_ATTEMPTS)
        with httpx.Client(transport=transport, auth=self._auth, timeout=_TIMEOUT_SECONDS) as client:
            found = client.get(self._url).raise_for_status().json()
        return {
            "access_key_id": found["access_key_id"],
            "secret_access_key": found["secret_access_key"],
            "token": found["token"],
            "expires_at": datetime.fromisoformat(found["expires_at"]),
        }
