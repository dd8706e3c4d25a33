"""Prefect's database and the bucket of the jobs."""

from typing import Literal, Self

from pydantic import Field, model_validator

from infra.settings.strict import SecretArn, StrictModel


class AuroraDatabase(StrictModel):
    """Aurora Serverless v2, which scales with the load."""

    kind: Literal["aurora"] = "aurora"
    min_capacity: float = Field(default=0.5, ge=0.5, le=128, description="ACU. Prefect never lets it pause.")
    max_capacity: float = Field(default=8, ge=1, le=256, description="ACU: about 2 GiB of memory each.")
    readers: int = Field(default=0, ge=0, le=2, description="Standby instances in other zones.")

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_capacity < self.min_capacity:
            raise ValueError("max_capacity is below min_capacity")
        return self


class InstanceDatabase(StrictModel):
    """One RDS instance: cheaper, for few jobs at once."""

    kind: Literal["instance"]
    instance_type: str = Field(default="t4g.small", pattern=r"^[a-z0-9]+\.[a-z0-9]+$")
    storage_gib: int = Field(default=20, ge=20, le=1000)
    multi_az: bool = Field(default=False, description="A standby in another zone, at twice the price.")


class ExistingDatabase(StrictModel):
    """An existing PostgreSQL 14 or newer, with a database whose owner may create extensions."""

    kind: Literal["existing"]
    host: str = Field(min_length=1)
    port: int = Field(default=5432, ge=1, le=65535)
    name: str = Field(default="prefect", min_length=1)
    secret_arn: SecretArn = Field(description="A JSON secret with `username` and `password`.")
    security_group_id: str = Field(
        pattern=r"^sg-([0-9a-f]{8}|[0-9a-f]{17})$", description="It gets a rule for the Prefect server."
    )


class Storage(StrictModel):
    """The bucket of bundles, outputs and logs of jobs."""

    noncurrent_days: int = Field(
        default=7, ge=1, le=365, description="How long deleted objects can be restored."
    )
    log_days: int = Field(default=90, ge=1, le=3653, description="How long access logs are kept, in days.")
