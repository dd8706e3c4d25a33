"""The settings of the facade. Prefect's own variables keep their names."""

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
from flows.contract.environments import EnvironmentSettings, SoftwareSettings
from flows.contract.executors import ExecutorSettings
from flows.contract.job_tokens import GatewaySettings
from flows.contract.secrets import SecretSettings
from flows.contract.storage import StorageSettings

_SIGNING_SECRET_PREFIX = "whsec_"
_SIGNING_KEY_BYTES = range(24, 65)
"""As the Standard Webhooks specification asks for."""


RoleArn = Annotated[str, Field(pattern=r"^arn:[\w-]+:iam::\d{12}:role/.+$")]


class LogFormat(StrEnum):
    """The format of log lines."""

    TEXT = "text"
    """For people."""
    JSON = "json"
    """For programs: one object a line."""


class Machines(StrEnum):
    """What jobs run on."""

    ANY = "any"
    """Machines of the operator's own; the resources of the job do not select one."""
    FARGATE = "fargate"
    """A task on AWS Fargate for each job, of the size that the job asks for."""


class Settings(
    StorageSettings,
    BundleLimits,
    SourceSettings,
    EnvironmentSettings,
    ExecutorSettings,
    SoftwareSettings,
    SecretSettings,
    GatewaySettings,
):
    """Read once at startup from environment variables with the prefix `JOBS_`."""

    model_config = SettingsConfigDict(
        env_prefix="JOBS_",
        frozen=True,
        hide_input_in_errors=True,  # a mistyped secret must not appear in the error
    )

    api_host: str = Field(default="127.0.0.1", min_length=1, description="The address to listen on.")
    api_port: int = Field(
        default=8000, ge=0, le=65535, description="The port to listen on; 0 for a free one."
    )
    machines: Machines = Field(
        default=Machines.ANY,
        description="What jobs run on: `any` machines of your own, or a `fargate` task of the size that the "
        "job asks for.",
    )
    max_body_bytes: int = Field(
        default=1 << 20, ge=1 << 10, le=1 << 26, description="The largest JSON body that is accepted."
    )
    read_timeout_seconds: float = Field(
        default=8.0, gt=0, le=60, description="How long a read waits for Prefect before the answer is 503."
    )
    longest_wait_seconds: float = Field(
        default=60.0, gt=0, le=60, description="The longest that `?wait=` delays an answer (long polling)."
    )
    submit_timeout_seconds: float = Field(
        default=20.0, gt=0, le=120, description="How long a submission is retried before the answer is 503."
    )
    retention_days: float | None = Field(
        default=None,
        gt=0,
        le=36_500,
        description="Remove jobs this many days after they have ended. Without it, jobs are kept.",
    )
    retention_look_seconds: float = Field(
        default=3600.0, gt=0, le=86_400, description="How often the service looks for jobs to remove."
    )
    request_head_seconds: float = Field(
        default=30.0,
        gt=0,
        le=600,
        description="How long a client may take to send the head of its first request on a connection.",
    )
    unread_seconds: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="How long a client may leave an answer unread, such as a download or an event stream, "
        "before its connection is ended. It must read at least 1 KiB a second.",
    )
    keep_alive_seconds: int = Field(
        default=5,
        ge=1,
        le=3600,
        description="How long an idle connection is kept open. Behind a load balancer, set it longer than "
        "the load balancer's idle timeout.",
    )
    service_id: str = Field(
        default="org.prefect-snakemake",
        min_length=1,
        description="WES: the id of this service, as a reversed domain name.",
    )
    service_name: str = Field(
        default="prefect-snakemake", min_length=1, description="WES: the name of this service."
    )
    organization_name: str = Field(
        default="unnamed", min_length=1, description="WES: the organization that offers this service."
    )
    organization_url: HttpUrl = Field(
        default=HttpUrl("http://localhost/"), description="WES: the website of that organization."
    )
    public_prefect_ui_url: HttpUrl | None = Field(
        default=None,
        description="The address at which clients reach the Prefect UI. By default, Prefect's own setting.",
    )

    tokens_file: Path | None = Field(
        default=None,
        description="The file with the API tokens, written by `python -m api tokens`. Without it and "
        "JOBS_TOKENS, authentication is off and the service listens on loopback only.",
    )
    tokens: SecretStr | None = Field(
        default=None, description="The content of that file, for platforms that pass secrets as variables."
    )
    rate_per_second: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="The rate limit in requests per second, for each token (or address, if tokens are off). "
        "No limit by default.",
    )
    rate_burst: int = Field(
        default=50,
        ge=1,
        le=100_000,
        description="How many requests may arrive at once before the rate limit applies.",
    )
    max_open_jobs_per_group: int | None = Field(
        default=None,
        ge=1,
        description="The most open jobs of a group, including pending ones. No limit by default.",
    )

    max_streams_per_token: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="The most event streams that a token (all clients, if tokens are off) has open at once.",
    )

    gateway_storage_role_arn: RoleArn | None = Field(
        default=None,
        description="The role of AWS of which the service makes credentials for the task of one job, limited "
        "to its files. Without it, tasks need a role of their own for the bucket.",
    )
    gateway_batch_role_arns: dict[str, RoleArn] = Field(
        default={},
        description="Roles of AWS by group, as JSON: of them the service makes credentials for heads whose "
        "rule jobs are jobs of AWS Batch, limited to one job. The group's executor names queue, job "
        "definition and storage.",
    )
    gateway_batch_seconds: int = Field(
        default=3600,
        ge=900,
        le=3600,
        description="How long these credentials are valid; a head gets new ones in time.",
    )
    log_format: LogFormat = Field(
        default=LogFormat.TEXT, description="The log format: `text`, or `json` with one object per line."
    )

    otel: bool | None = Field(
        default=None,
        description="Trace requests with OpenTelemetry. By default, if OTEL_EXPORTER_OTLP_ENDPOINT is set.",
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="The secret that signs webhooks: `whsec_` and 24 to 64 random bytes in base64. "
        "Webhooks are off without it.",
    )
    webhook_allowed_private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        max_length=100,
        description="Private hosts (names or addresses) that webhooks may be sent to, with http too; "
        "separated by commas.",
    )
    webhook_retry_seconds: Annotated[tuple[float, ...], NoDecode] = Field(
        default=(5, 30, 120, 300, 900, 1800, 3600),
        max_length=50,
        description="When to retry a failed webhook, in seconds after the end of the job; separated by "
        "commas.",
    )
    webhook_poll_seconds: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="How often to look for jobs that have ended, to send their webhooks.",
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
        # Resolved at startup, so that a later change of the working directory has no effect.
        return value.absolute()


def described() -> str:
    """Every setting with its variable, default and description, for `--help`."""
    lines = ["settings (environment variables):"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f" [{_written(field.default)}]"
        lines += ["", f"  JOBS_{name.upper()}{default}"]
        lines += textwrap.wrap(field.description or "", 78, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _signing_key_bytes(secret: str) -> int:
    """The length of the key that the secret encodes; 0 if the secret is malformed."""
    if not secret.startswith(_SIGNING_SECRET_PREFIX):
        return 0
    try:
        return len(base64.b64decode(secret.removeprefix(_SIGNING_SECRET_PREFIX), validate=True))
    except binascii.Error:
        return 0


def _written(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
