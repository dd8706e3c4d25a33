"""Groups whose rule jobs are jobs of AWS Batch."""

from typing import Annotated

from pydantic import Field

from infra.settings.delivery import ForeignImage, PushedImage
from infra.settings.strict import StrictModel

BatchGroup = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=30)]
"""Names a bucket and a queue, which take fewer characters than a group does."""


class Batch(StrictModel):
    """The rule jobs of a group on AWS Batch, on Fargate. The head of each job stays a task on ECS."""

    image: PushedImage | ForeignImage = Field(
        discriminator="kind",
        description="What rule jobs run in. It has bash, pip, Snakemake and the software of the rules.",
    )
    max_vcpus: int = Field(
        default=64, ge=1, le=10_000, description="Of all rule jobs of the group that run at once."
    )
    spot: bool = Field(default=False, description="Cheaper capacity, which AWS may take away.")
    rule_jobs: int = Field(
        default=100, ge=1, le=100_000, description="Rule jobs that one job submits at once."
    )
    timeout_seconds: int = Field(
        default=86_400, ge=60, le=1_209_600, description="Batch ends a rule job that takes longer."
    )
    disk_gib: int | None = Field(
        default=None, ge=21, le=200, description="Disk of a rule job; 20 GiB when absent."
    )
    keep_days: int | None = Field(
        default=None,
        ge=1,
        description="Results are removed so many days after they were written; kept when absent.",
    )
