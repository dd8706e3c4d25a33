"""The programs: facade, Prefect server, worker, and the tasks of jobs."""

from ipaddress import IPv4Network
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from infra.settings.fargate import Size
from infra.settings.strict import CertificateArn, SecretArn, StrictModel


class Facade(StrictModel):
    """The jobs API, which alone is public."""

    domain_name: str = Field(min_length=4, description="Its name, such as `jobs.example.org`.")
    certificate_arn: CertificateArn | None = Field(default=None, description="An existing certificate.")
    hosted_zone_id: str | None = Field(
        default=None,
        pattern=r"^Z[A-Z0-9]+$",
        description="The Route 53 zone for its address, and for a new certificate if none is named.",
    )
    hosted_zone_name: str | None = Field(default=None, description="That zone's name, such as `example.org`.")
    tokens_secret_arn: SecretArn = Field(description="Holds what `python -m api tokens create` writes.")
    webhook_secret_arn: SecretArn | None = Field(
        default=None, description="Holds `whsec_…`. Without it, no webhooks are sent."
    )
    allowed_cidrs: tuple[str, ...] = Field(
        default=("0.0.0.0/0",),
        min_length=1,
        description="Addresses that may connect, with a token.",
    )
    internal: bool = Field(default=False, description="Reachable only from the VPC and connected networks.")
    replicas: int = Field(default=1, ge=1, le=20)
    size: Size = Size(cpu=256, memory_mib=512)
    retention_days: int | None = Field(
        default=None, ge=1, description="Jobs are removed so many days after their end."
    )

    @field_validator("allowed_cidrs")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(IPv4Network(cidr)) for cidr in value)

    @model_validator(mode="after")
    def _has_a_certificate(self) -> Self:
        if (self.hosted_zone_id is None) != (self.hosted_zone_name is None):
            raise ValueError("hosted_zone_id and hosted_zone_name go together")
        if self.certificate_arn is None and self.hosted_zone_id is None:
            raise ValueError("name a certificate_arn, or the hosted zone that validates a new certificate")
        return self


class Messaging(StrictModel):
    """The Valkey that the tasks of a larger Prefect server share: a node, and its standby in another zone."""

    node_type: str = Field(
        default="cache.t4g.small",
        pattern=r"^cache\.[a-z0-9]+\.[a-z0-9]+$",
        description="Events on their way must fit into its memory while Prefect's services are replaced.",
    )


class Server(StrictModel):
    """The Prefect server, which is reachable inside the VPC only."""

    size: Size = Field(
        default=Size(cpu=1024, memory_mib=2048),
        description="Of each task. A process of Prefect's uses one vCPU, and no more.",
    )
    replicas: int = Field(
        default=1,
        ge=1,
        le=10,
        description="Tasks that answer requests. From 2, Prefect's services have a task of their own, and "
        "all share a Valkey.",
    )
    messaging: Messaging = Messaging()
    may_be_entered: bool = Field(
        default=False,
        description="ECS Exec: whoever IAM allows may forward a port to Prefect's UI and open a shell.",
    )


class Worker(StrictModel):
    """The task that starts jobs: registration, then the ECS worker and the reconciler."""

    size: Size = Size(cpu=512, memory_mib=2048)
    reconcile_seconds: int = Field(
        default=60, ge=10, le=3600, description="Seconds between two passes of the reconciler."
    )


class Group(StrictModel):
    """Priority and limit of a group. They replace those of prefect.yaml."""

    priority: int = Field(ge=1, description="Jobs of the group with the lowest number go first.")
    concurrency_limit: int | None = Field(
        default=None,
        ge=0,
        description="Jobs that run at once. 0 pauses the group; no limit when absent.",
    )


GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=100)]


class Jobs(StrictModel):
    """Defaults of jobs. Each job asks for CPU and memory, and may ask for more disk."""

    disk_gib: int | None = Field(default=None, ge=21, le=200, description="Disk; 20 GiB when absent.")
