"""The sizes of a task that Fargate offers.

`flows.contract.fargate` has the same table for the jobs. `infra` imports nothing of the service, so
`tests/infra/test_agreement.py` compares both.
"""

from typing import Self

from pydantic import Field, model_validator

from infra.settings.strict import StrictModel

FARGATE_MEMORY_MIB = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4096 + 1, 1024)),
    1024: tuple(range(2048, 8192 + 1, 1024)),
    2048: tuple(range(4096, 16384 + 1, 1024)),
    4096: tuple(range(8192, 30720 + 1, 1024)),
    8192: tuple(range(16384, 61440 + 1, 4096)),
    16384: tuple(range(32768, 122880 + 1, 8192)),
}
"""CPU units (1,024 are a vCPU) and the memory that Fargate gives with them: Amazon ECS Developer Guide,
"Task CPU and memory"."""


class Size(StrictModel):
    """A size that Fargate offers."""

    cpu: int = Field(description="CPU units: 1,024 are a vCPU.")
    memory_mib: int = Field(description="Memory in MiB.")

    @model_validator(mode="after")
    def _is_offered(self) -> Self:
        if self.cpu not in FARGATE_MEMORY_MIB:
            raise ValueError(f"Fargate offers {list(FARGATE_MEMORY_MIB)} CPU units, not {self.cpu}")
        if self.memory_mib not in (offered := FARGATE_MEMORY_MIB[self.cpu]):
            nearest = min(offered, key=lambda memory: abs(memory - self.memory_mib))
            raise ValueError(
                f"Fargate offers no {self.memory_mib} MiB with {self.cpu} CPU units; the nearest is {nearest}"
            )
        return self
