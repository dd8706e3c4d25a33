"""The settings file as a whole, and how it is read."""

import tomllib
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from infra.settings.batch import Batch, BatchGroup
from infra.settings.data import AuroraDatabase, ExistingDatabase, InstanceDatabase, Storage
from infra.settings.delivery import PROJECT, BuiltImage, ForeignImage, GitHub, PushedImage
from infra.settings.foundation import ExistingCluster, ExistingNetwork, NewCluster, NewNetwork
from infra.settings.service import Facade, Group, GroupName, Jobs, Server, Worker
from infra.settings.strict import SettingsRefused, StrictModel
from infra.settings.watch import Watch

SETTINGS_FILE = PROJECT / "infra" / "settings.toml"

_LONGEST_BUCKET = 63


class Settings(StrictModel):
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
        default=True,
        description="Keep bucket and database when their stack is removed.",
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
        default={}, description="They replace those of prefect.yaml; other names become new groups."
    )
    batch: dict[BatchGroup, Batch] = Field(
        default={}, description="Groups whose rule jobs are jobs of AWS Batch."
    )
    github: GitHub | None = None
    watch: Watch

    @model_validator(mode="after")
    def _zones_fit(self) -> Self:
        if self.availability_zones and len(self.availability_zones) < 2:
            raise ValueError("availability_zones: a load balancer and a database need at least two")
        if any(not zone.startswith(self.region) for zone in self.availability_zones):
            raise ValueError(f"availability_zones: one is not in {self.region}")
        if isinstance(self.network, ExistingNetwork):
            subnets = {len(self.network.private_subnet_ids), len(self.network.public_subnet_ids)}
            if subnets != {len(self.zones)}:
                raise ValueError(f"network: list one private and one public subnet for each of {self.zones}")
        elif isinstance(self.cluster, ExistingCluster):
            raise ValueError("cluster: an existing cluster needs network.kind = 'existing', with its VPC")
        return self

    @model_validator(mode="after")
    def _buckets_have_names(self) -> Self:
        for group in self.batch:
            if len(self.batch_bucket(group)) > _LONGEST_BUCKET:
                raise ValueError(
                    f"batch.{group}: its bucket would be {self.batch_bucket(group)}, more than "
                    f"{_LONGEST_BUCKET} characters; shorten the group's name, or `name`"
                )
        return self

    def batch_bucket(self, group: str) -> str:
        """The name of the bucket of a group's rule jobs."""
        return f"{self.name}-{self.account}-{self.region}-{group}"

    def with_image(self, digest: str | None) -> Self:
        """The same settings with a pushed image, if one is named."""
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
            f"{path} does not exist. Copy infra/settings.example.toml there, or set -c settings=FILE."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsRefused(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        mistakes = "\n".join(
            f"  {'.'.join(str(part) for part in mistake['loc']) or 'settings'}: {mistake['msg']}"
            for mistake in error.errors(include_input=False)
        )
        raise SettingsRefused(f"{path} is invalid:\n{mistakes}") from error
