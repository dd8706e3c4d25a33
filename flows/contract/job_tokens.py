"""Tokens of one job each, with which the task of a job reaches Prefect and its files through the facade.

The program that starts the task makes the token, and the facade checks it. Both know the same secret,
and neither stores tokens.
"""

import hmac
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

GATEWAY_PATH: Final = "/prefect-gateway"
"""Where the facade answers tasks of jobs: `PREFECT_API_URL` of a task ends with it."""

STORAGE_PATH: Final = "/storage-credentials"
"""Below `GATEWAY_PATH`: credentials of the bucket, for the files of one job."""

BATCH_PATH: Final = "/batch-credentials"
"""Below `GATEWAY_PATH`: credentials of AWS Batch, for the rule jobs of one job."""

USER: Final = "job"
"""The name before the token in `PREFECT_API_AUTH_STRING`."""


class GatewaySettings(BaseSettings):
    """What makes and checks the tokens of jobs. Set the same values for the API and the worker."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    gateway_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="The secret behind the tokens with which tasks of jobs reach the service, at least 32 "
        "characters. Without it, the facade answers no tasks.",
    )


def make_token(secret: str, flow_run_id: UUID, now: datetime, lifetime: timedelta) -> str:
    """A token for this flow run: its id, when the token expires, and a signature."""
    claims = f"{flow_run_id}.{int((now + lifetime).timestamp())}"
    return f"{claims}.{_signature(secret, claims)}"


def flow_run_of(token: str, secret: str, now: datetime) -> UUID | None:
    """The flow run that the token is for. None if it is not valid, or not any more."""
    claims, _, signature = token.rpartition(".")
    if not hmac.compare_digest(signature.encode(), _signature(secret, claims).encode()):
        return None
    flow_run_id, _, expires = claims.partition(".")
    return UUID(flow_run_id) if now.timestamp() < int(expires) else None


def _signature(secret: str, claims: str) -> str:
    return hmac.new(secret.encode(), f"job-token:{claims}".encode(), sha256).hexdigest()
