"""What an operator can set of the facade. Prefect's own variables keep their names."""

import base64
import binascii
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, HttpUrl, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from flows.contract.addresses import SourceSettings
from flows.contract.bundles import BundleLimits
from flows.contract.storage import StorageSettings

_SIGNING_SECRET_PREFIX = "whsec_"
_SIGNING_KEY_BYTES = range(24, 65)
"""As the Standard Webhooks specification asks for."""


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    """For people."""
    JSON = "json"
    """For programs: one object a line."""


class Machines(StrEnum):
    """What jobs run on."""

    ANY = "any"
    """Machines that are there, whatever the job asks for."""
    FARGATE = "fargate"
    """A task of its own for each job, of the size that the job asks for."""


class Settings(StorageSettings, BundleLimits, SourceSettings):
    """Read once at start from the environment, every variable with the prefix `JOBS_`."""

    model_config = SettingsConfigDict(
        env_prefix="JOBS_",
        frozen=True,
        hide_input_in_errors=True,  # a secret with a mistake in it is still one
    )

    api_host: str = Field(default="127.0.0.1", min_length=1, description="The address to listen on.")
    api_port: int = Field(
        default=8000, ge=0, le=65535, description="The port to listen on; 0 for a free one."
    )
    machines: Machines = Field(
        default=Machines.ANY,
        description="What jobs run on: `any` machines that there are, or a task of `fargate` of the size "
        "that the job asks for.",
    )
    max_body_bytes: int = Field(
        default=1 << 20, ge=1 << 10, le=1 << 26, description="The largest JSON body that is read."
    )
    read_timeout_seconds: float = Field(
        default=8.0, gt=0, le=60, description="How long a read waits for Prefect before it answers 503."
    )
    longest_wait_seconds: float = Field(
        default=60.0, gt=0, le=60, description="How long `?wait=` holds an answer back at most."
    )
    submit_timeout_seconds: float = Field(
        default=20.0, gt=0, le=120, description="How long a submission is tried again before it answers 503."
    )
    retention_days: float | None = Field(
        default=None,
        gt=0,
        le=36_500,
        description="Jobs that ended longer ago are removed; kept until somebody removes them when absent.",
    )
    retention_look_seconds: float = Field(
        default=3600.0, gt=0, le=86_400, description="How often old jobs are looked for."
    )
    keep_alive_seconds: int = Field(
        default=5,
        ge=1,
        le=3600,
        description="How long a connection on which nobody asks is kept; behind a load balancer, longer than "
        "it keeps them.",
    )
    service_id: str = Field(
        default="org.prefect-snakemake", min_length=1, description="In WES: the id of this service."
    )
    service_name: str = Field(
        default="prefect-snakemake", min_length=1, description="In WES: what this service is called."
    )
    organization_name: str = Field(
        default="unnamed", min_length=1, description="In WES: who offers this service."
    )
    organization_url: HttpUrl = Field(
        default=HttpUrl("http://localhost/"), description="In WES: the address of who offers this service."
    )
    public_prefect_ui_url: HttpUrl | None = Field(
        default=None,
        description="Where clients reach Prefect's UI; beside PREFECT_API_URL when absent.",
    )

    tokens_file: Path | None = Field(
        default=None,
        description="Who may come in: the file that `python -m api tokens` writes. "
        "Without it and JOBS_TOKENS, everybody on this machine may.",
    )
    tokens: SecretStr | None = Field(
        default=None, description="The content of such a file instead, where secrets are variables."
    )
    rate_per_second: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="Requests per second of one token, or of one address without tokens; "
        "no limit when absent.",
    )
    rate_burst: int = Field(
        default=50, ge=1, le=100_000, description="Requests that may come at once before that limit counts."
    )
    max_open_jobs_per_group: int | None = Field(
        default=None,
        ge=1,
        description="Jobs of one group that may be open, waiting ones included; no limit when absent.",
    )

    max_streams_per_token: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Streams of events that one token, or everybody without tokens, may have open at once.",
    )

    log_format: LogFormat = Field(
        default=LogFormat.TEXT, description="How the log is written: `text` or `json`, one object a line."
    )

    otel: bool | None = Field(
        default=None,
        description="Whether requests are traced; when absent, if OTEL_EXPORTER_OTLP_ENDPOINT is set.",
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="Signs webhooks: `whsec_` and 24 to 64 random bytes in base64. No webhooks when absent.",
    )
    webhook_allowed_private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        max_length=100,
        description="Names or addresses to which webhooks may lead although they are private, "
        "also without https; separated by commas.",
    )
    webhook_retry_seconds: Annotated[tuple[float, ...], NoDecode] = Field(
        default=(5, 30, 120, 300, 900, 1800, 3600),
        max_length=50,
        description="When a webhook that failed is tried again, in seconds from the end of the job; "
        "separated by commas.",
    )
    webhook_poll_seconds: float = Field(
        default=2.0, gt=0, le=60, description="How often Prefect is asked which jobs have ended."
    )

    @field_validator("webhook_allowed_private_hosts", "webhook_retry_seconds", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part.strip().strip("[]").lower() for part in value.split(",") if part.strip()]

    @field_validator("webhook_secret", mode="after")
    @classmethod
    def _is_a_signing_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and _signing_key_bytes(value.get_secret_value()) not in _SIGNING_KEY_BYTES:
            raise ValueError(f"must be {_SIGNING_SECRET_PREFIX} and 24 to 64 random bytes in base64")
        return value

    @model_validator(mode="after")
    def _tokens_come_from_one_place(self) -> Self:
        if self.tokens is not None and self.tokens_file is not None:
            raise ValueError("JOBS_TOKENS and JOBS_TOKENS_FILE are both set; unset one of them")
        return self

    @field_validator("tokens_file", mode="after")
    @classmethod
    def _absolute_file(cls, value: Path | None) -> Path | None:
        return value.absolute() if value else None

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        # From the start: nothing may depend on a working directory that changes later.
        return value.absolute()


def described() -> str:
    """Every setting, as an operator writes it, with its default and what it is for."""
    lines = ["settings, as environment variables:"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f" [{_written(field.default)}]"
        lines += ["", f"  JOBS_{name.upper()}{default}"]
        lines += textwrap.wrap(field.description or "", 78, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _signing_key_bytes(secret: str) -> int:
    """How many bytes the secret stands for; 0 if it is not written as it must be."""
    if not secret.startswith(_SIGNING_SECRET_PREFIX):
        return 0
    try:
        return len(base64.b64decode(secret.removeprefix(_SIGNING_SECRET_PREFIX), validate=True))
    except binascii.Error:
        return 0


def _written(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
