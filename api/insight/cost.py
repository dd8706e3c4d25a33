"""What a job cost on Fargate, at the list prices that the operator has set. Pure."""

from collections.abc import Mapping

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.contract.fargate import CPU_UNITS_PER_VCPU, MIB_PER_GIB

_SECONDS_PER_HOUR = 3600


class Prices(BaseSettings):
    """The operator's prices, in USD."""

    model_config = SettingsConfigDict(env_prefix="JOBS_PRICE_", frozen=True)

    vcpu_hour: float | None = Field(
        default=None,
        ge=0,
        description="The price of a vCPU of Fargate for an hour, in USD. With it and the next one, "
        "`GET /jobs/{id}/usage` says what a job cost.",
    )
    gib_hour: float | None = Field(
        default=None, ge=0, description="The price of a GiB of memory of Fargate for an hour, in USD."
    )

    def cost(self, machine: Mapping[str, object], seconds: float | None) -> float | None:
        """In USD, of a task of this size (`cpu` in units of ECS, `memory` in MiB); None if unknown."""
        cpu, memory = machine.get("cpu"), machine.get("memory")
        if self.vcpu_hour is None or self.gib_hour is None or seconds is None:
            return None
        if not (isinstance(cpu, int) and isinstance(memory, int)):
            return None
        hourly = cpu / CPU_UNITS_PER_VCPU * self.vcpu_hour + memory / MIB_PER_GIB * self.gib_hour
        return hourly * seconds / _SECONDS_PER_HOUR
