"""How the processes of a larger Prefect server reach the Valkey that they share.

On one machine the stack starts it (`deployments.valkey`). Elsewhere an operator names it:
`JOBS_VALKEY_HOST` makes the programs of `deployments.server` use it.
"""

from collections.abc import Mapping
from urllib.parse import quote

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class BrokerSettings(BaseSettings):
    """The Valkey that the processes of a larger Prefect server share."""

    model_config = SettingsConfigDict(env_prefix="JOBS_VALKEY_", env_ignore_empty=True)

    host: str | None = Field(
        default=None,
        description="The Valkey that the processes of the Prefect server share: its name or address.",
    )
    port: int = Field(default=6379, ge=1, le=65535, description="Its port.")
    password: SecretStr | None = Field(default=None, description="Its password, if it asks for one.")
    tls: bool = Field(default=False, description="Connect by TLS, and check the certificate.")

    @property
    def variables(self) -> Mapping[str, str]:
        """Variables of Prefect; none if no Valkey is named."""
        if self.host is None:
            return {}
        login = "" if self.password is None else f":{quote(self.password.get_secret_value(), safe='')}@"
        return broker_variables(f"redis{'s' * self.tls}://{login}{self.host}:{self.port}/0")


def broker_variables(url: str) -> Mapping[str, str]:
    """Variables of Prefect with which all processes of a server use the Valkey at `url`.

    None of them migrates the database by itself: `deployments.migration` does.
    """
    return {
        "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_REDIS_MESSAGING_URL": url,
        "PREFECT_SERVER_DOCKET_URL": url,
        "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
    }
