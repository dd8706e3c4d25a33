"""What an institute decides about its deployment: one file, read once, checked before anything is made.

Nearly every field has a default; `settings.example.toml` shows them all. Institutes and
environments differ by settings, never by edits of the code.
"""

import tomllib
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PROJECT = Path(__file__).parents[1]
SETTINGS_FILE = PROJECT / "infra" / "settings.toml"
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


def _arn(service: str) -> Any:
    return Field(pattern=rf"^arn:aws[a-z-]*:{service}:[a-z0-9-]*:[0-9]*:\S+$")


CertificateArn = Annotated[str, _arn("acm")]
SecretArn = Annotated[
    str, Field(pattern=r"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:\S+-\w{6}$")
]
"""A whole one, with the six characters at its end: ECS asks for it, and a grant names it exactly."""
SubnetId = Annotated[str, Field(pattern=r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$")]


class SettingsRefused(Exception):
    """The settings can't be used; the message names each field, and says what to do."""


class Part(BaseModel):
    """A table of the file: unknown keys and wrong types are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Size(Part):
    """A size that Fargate offers."""

    cpu: int = Field(description="CPU units: 1,024 are a vCPU.")
    memory_mib: int = Field(description="Memory in MiB.")

    @model_validator(mode="after")
    def _is_offered(self) -> Self:
        if self.cpu not in FARGATE_MEMORY_MIB:
            raise ValueError(f"Fargate has no {self.cpu} CPU units; it has {list(FARGATE_MEMORY_MIB)}")
        if self.memory_mib not in (offered := FARGATE_MEMORY_MIB[self.cpu]):
            nearest = min(offered, key=lambda memory: abs(memory - self.memory_mib))
            raise ValueError(
                f"Fargate gives {self.cpu} CPU units no {self.memory_mib} MiB; the nearest is {nearest}"
            )
        return self


class BuiltImage(Part):
    """The image is built from this checkout at each deployment; that needs Docker, Finch or Podman."""

    kind: Literal["built"] = "built"
    directory: Path = Field(default=Path(), description="The build's context, from this checkout's root.")
    dockerfile: str = Field(default="deployments/Dockerfile", description="Below that directory.")

    @property
    def context(self) -> Path:
        """Where the build starts. Raises `SettingsRefused` if there is nothing to build."""
        context = PROJECT / self.directory
        if not (context / self.dockerfile).is_file():
            raise SettingsRefused(f"image: there is no {context / self.dockerfile}; use a pushed image.")
        return context


class PushedImage(Part):
    """The image was pushed before, to the repository of this deployment, as CI does it."""

    kind: Literal["pushed"]
    digest: str = Field(
        pattern=r"^(sha256:[0-9a-f]{64}|[\w][\w.-]{0,127})$",
        description="`sha256:…`, which can't change behind a deployment's back; or a tag.",
    )


class ForeignImage(Part):
    """The image lies in a registry that needs no login."""

    kind: Literal["foreign"]
    uri: str = Field(min_length=1, description="Registry, repository and digest or tag.")

    @field_validator("uri")
    @classmethod
    def _needs_no_login(cls, value: str) -> str:
        if ".dkr.ecr." in value:
            raise ValueError(
                "an ECR registry lets nobody in without a right of its own, which is not given here: "
                'push the image to the repository of this deployment, and name it with kind = "pushed"'
            )
        return value


class NewNetwork(Part):
    """A VPC of its own: public subnets for the load balancer and NAT, private ones for all else."""

    kind: Literal["new"] = "new"
    cidr: str = Field(default="10.40.0.0/16", description="Its addresses: each job takes one.")
    nat_gateways: int = Field(default=1, ge=1, le=3, description="One per zone survives the loss of a zone.")
    interface_endpoints: bool = Field(
        default=False, description="Reach AWS's APIs without the NAT gateway; costs per endpoint and zone."
    )

    @field_validator("cidr")
    @classmethod
    def _is_private(cls, value: str) -> str:
        network = IPv4Network(value)
        if not network.is_private or not 16 <= network.prefixlen <= 24:
            raise ValueError("a VPC's addresses are private, /16 to /24")
        return value


class ExistingNetwork(Part):
    """A VPC that is there, with DNS hostnames on, a way out of its private subnets, and a way to S3."""

    kind: Literal["existing"]
    vpc_id: str = Field(pattern=r"^vpc-([0-9a-f]{8}|[0-9a-f]{17})$")
    cidr: str = Field(description="The addresses of the VPC.")
    private_subnet_ids: tuple[SubnetId, ...] = Field(min_length=2, description="One per zone, in that order.")
    public_subnet_ids: tuple[SubnetId, ...] = Field(min_length=2, description="One per zone, in that order.")

    @field_validator("cidr")
    @classmethod
    def _is_a_network(cls, value: str) -> str:
        return str(IPv4Network(value))


class NewCluster(Part):
    """A cluster of its own."""

    kind: Literal["new"] = "new"
    container_insights: bool = Field(
        default=False, description="Metrics per service and task; AWS charges each."
    )


class ExistingCluster(Part):
    """A cluster that is there, in the same VPC, with the capacity providers FARGATE and FARGATE_SPOT."""

    kind: Literal["existing"]
    cluster_name: str = Field(min_length=1)


class AuroraDatabase(Part):
    """Aurora Serverless v2: grows with the load."""

    kind: Literal["aurora"] = "aurora"
    min_capacity: float = Field(default=0.5, ge=0.5, le=128, description="ACU. Prefect never lets it pause.")
    max_capacity: float = Field(default=8, ge=1, le=256, description="ACU: about 2 GiB of memory each.")
    readers: int = Field(default=0, ge=0, le=2, description="Standby instances in other zones.")

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_capacity < self.min_capacity:
            raise ValueError("max_capacity is below min_capacity")
        return self


class InstanceDatabase(Part):
    """One RDS instance: the cheaper one, for an institute with few jobs at once."""

    kind: Literal["instance"]
    instance_type: str = Field(default="t4g.small", pattern=r"^[a-z0-9]+\.[a-z0-9]+$")
    storage_gib: int = Field(default=20, ge=20, le=1000)
    multi_az: bool = Field(default=False, description="A standby in another zone, at twice the price.")


class ExistingDatabase(Part):
    """A PostgreSQL 14 or newer that is there, with a database whose owner may create extensions."""

    kind: Literal["existing"]
    host: str = Field(min_length=1)
    port: int = Field(default=5432, ge=1, le=65535)
    name: str = Field(default="prefect", min_length=1)
    secret_arn: SecretArn = Field(description="A secret of JSON with `username` and `password`.")
    security_group_id: str = Field(
        pattern=r"^sg-([0-9a-f]{8}|[0-9a-f]{17})$", description="It gets a rule that lets Prefect in."
    )


class Storage(Part):
    """The bucket of bundles, outputs and logs of jobs."""

    noncurrent_days: int = Field(
        default=7, ge=1, le=365, description="How long what was deleted can come back."
    )
    log_days: int = Field(default=90, ge=1, le=3653, description="How long access logs are kept.")


class Facade(Part):
    """The jobs API: the only public thing."""

    domain_name: str = Field(min_length=4, description="Where clients find it, as `jobs.example.org`.")
    certificate_arn: CertificateArn | None = Field(default=None, description="A certificate that is there.")
    hosted_zone_id: str | None = Field(
        default=None,
        pattern=r"^Z[A-Z0-9]+$",
        description="The Route 53 zone: it gets the address, and the certificate if none is there.",
    )
    hosted_zone_name: str | None = Field(default=None, description="That zone's name, as `example.org`.")
    tokens_secret_arn: SecretArn = Field(description="Holds what `python -m api tokens create` writes.")
    webhook_secret_arn: SecretArn | None = Field(
        default=None, description="Holds `whsec_…`; no webhooks without."
    )
    allowed_cidrs: tuple[str, ...] = Field(
        default=("0.0.0.0/0",), min_length=1, description="Who may connect at all; then come tokens."
    )
    internal: bool = Field(default=False, description="Reached from the VPC and what is joined to it only.")
    replicas: int = Field(default=1, ge=1, le=20)
    size: Size = Size(cpu=256, memory_mib=512)
    retention_days: int | None = Field(
        default=None, ge=1, description="Jobs that ended longer ago are removed."
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
            raise ValueError("name a certificate_arn, or the hosted zone in which one can be proved")
        return self


class Server(Part):
    """The Prefect server: inside the VPC only."""

    size: Size = Size(cpu=1024, memory_mib=2048)
    replicas: int = Field(default=1, ge=1)
    may_be_entered: bool = Field(
        default=False,
        description="ECS Exec: whoever IAM lets may forward a port to Prefect's UI, and open a shell.",
    )

    @field_validator("replicas")
    @classmethod
    def _is_one(cls, value: int) -> int:
        if value != 1:
            raise ValueError(
                "more than one Prefect server needs Redis and a migration of its own, which is not offered: "
                "give the one a larger size, and the database a larger max_capacity"
            )
        return value


class Worker(Part):
    """The task that starts jobs: registration, then the ECS worker and the reconciler."""

    size: Size = Size(cpu=512, memory_mib=2048)
    reconcile_seconds: int = Field(
        default=60, ge=10, le=3600, description="How often stuck jobs are looked for."
    )


class Group(Part):
    """A group's place in the queue; it replaces what prefect.yaml says of a group of this name."""

    priority: int = Field(ge=1, description="Jobs of the group with the lowest number go first.")
    concurrency_limit: int | None = Field(
        default=None, ge=0, description="How many jobs run at once; 0 holds the group, none is no limit."
    )


GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=100)]


class Jobs(Part):
    """What a job gets whatever it asks for: CPU and memory come with each job, and so may more disk."""

    disk_gib: int | None = Field(default=None, ge=21, le=200, description="Disk; 20 GiB when absent.")


class GitHub(Part):
    """Lets one repository's workflows push the image, and one of its environments deploy."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    branch: str = Field(default="main", min_length=1, description="Its workflows may push images.")
    environment: str = Field(default="production", min_length=1, description="Its workflows may deploy.")
    provider_arn: str | None = Field(
        default=None, description="GitHub's OIDC provider, if the account has it."
    )


class Watch(Part):
    """Who hears of trouble, and when."""

    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
    monthly_budget_usd: float = Field(
        default=300, gt=0, description="A letter at 80 % and when 100 % is foreseen."
    )
    log_days: Literal[1, 3, 7, 14, 30, 60, 90, 180, 365] = Field(
        default=30, description="How long logs are kept."
    )


class Settings(Part):
    """The whole file."""

    name: str = Field(
        default="prefect-snakemake", pattern=r"^[a-z][a-z0-9-]{1,30}$", description="Prefix of all names."
    )
    account: str = Field(pattern=r"^\d{12}$")
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    availability_zones: tuple[str, ...] = Field(
        default=(), max_length=3, description="Two or three; `a` and `b` of the region when absent."
    )
    protect_data: bool = Field(
        default=True, description="Bucket and database outlive their stack, and can't be deleted by mistake."
    )
    image: BuiltImage | PushedImage | ForeignImage = Field(default_factory=BuiltImage, discriminator="kind")
    network: NewNetwork | ExistingNetwork = Field(default=NewNetwork(), discriminator="kind")
    cluster: NewCluster | ExistingCluster = Field(default=NewCluster(), discriminator="kind")
    database: AuroraDatabase | InstanceDatabase | ExistingDatabase = Field(
        default=AuroraDatabase(), discriminator="kind"
    )
    storage: Storage = Storage()
    facade: Facade
    server: Server = Server()
    worker: Worker = Worker()
    jobs: Jobs = Jobs()
    groups: dict[GroupName, Group] = Field(
        default={}, description="Over those of prefect.yaml; a name that it has not becomes a group as well."
    )
    github: GitHub | None = None
    watch: Watch

    @model_validator(mode="after")
    def _zones_fit(self) -> Self:
        if self.availability_zones and len(self.availability_zones) < 2:
            raise ValueError("availability_zones: a load balancer and a database need two")
        if any(not zone.startswith(self.region) for zone in self.availability_zones):
            raise ValueError(f"availability_zones: one is not in {self.region}")
        if isinstance(self.network, ExistingNetwork):
            subnets = {len(self.network.private_subnet_ids), len(self.network.public_subnet_ids)}
            if subnets != {len(self.zones)}:
                raise ValueError(f"network: list one private and one public subnet for each of {self.zones}")
        elif isinstance(self.cluster, ExistingCluster):
            raise ValueError("cluster: one that is there needs network.kind = 'existing', its VPC")
        return self

    def with_image(self, digest: str | None) -> Self:
        """The same with an image that was pushed before, if one is named."""
        if digest is None:
            return self
        return self.model_copy(update={"image": PushedImage(kind="pushed", digest=digest)})

    @property
    def cluster_name(self) -> str:
        return self.cluster.cluster_name if isinstance(self.cluster, ExistingCluster) else self.name

    @property
    def zones(self) -> tuple[str, ...]:
        return self.availability_zones or (f"{self.region}a", f"{self.region}b")


def read_settings(path: Path = SETTINGS_FILE) -> Settings:
    """The settings in a TOML file. Raises `SettingsRefused`."""
    try:
        return Settings.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise SettingsRefused(
            f"There is no {path}. Copy infra/settings.example.toml there, or name a file: -c settings=FILE."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsRefused(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        mistakes = "\n".join(
            f"  {'.'.join(str(part) for part in mistake['loc']) or 'settings'}: {mistake['msg']}"
            for mistake in error.errors(include_input=False)
        )
        raise SettingsRefused(f"{path} can't be used:\n{mistakes}") from error
