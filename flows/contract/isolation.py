"""How jobs are kept apart on one machine: the operator's settings, and what a machine lacks for it.

The worker writes what its machine lacks below JOBS_HOME, and the jobs API reports it.
"""

import json
import os
import socket
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from flows.contract.data_roots import EVERY_GROUP, GroupRoots, roots_of

_RECORDS = "isolation"
_MEBIBYTE = 1 << 20
_NAMES = TypeAdapter(list[str])


class Isolation(StrEnum):
    """Whether each job runs in a room of its own."""

    REQUIRED = "required"
    """Always. A worker whose machine can't make rooms does not start."""
    PREFERRED = "preferred"
    """Where the machine can; elsewhere the worker's log, each job's log and /readyz say what is missing."""
    OFF = "off"
    """Never: jobs on AWS are alone in their task."""


class Network(StrEnum):
    """What a job in its room reaches."""

    OWN = "own"
    """The world, but neither the machine nor the metadata service of a cloud. It takes slirp4netns."""
    HOST = "host"
    """What the machine reaches."""
    NONE = "none"
    """Nothing."""


class Limits(BaseModel):
    """What a job may take. Absent fields have the default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_mb: int | None = Field(default=None, ge=64)
    """In MiB, of the job where control groups can be made, and of each process; no limit when absent."""
    processes: int = Field(default=8192, ge=16)
    """Processes and threads of the job. Root has no such limit where no control groups can be made."""
    file_mb: int = Field(default=1 << 20, ge=1)
    """The largest file, in MiB."""
    open_files: int = Field(default=1 << 16, ge=64)
    """Of each process."""

    def by_resource(self) -> dict[str, int]:
        """The limits by their names in getrlimit(2)."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return {
            "RLIMIT_DATA": memory if self.memory_mb is None else self.memory_mb * _MEBIBYTE,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_FSIZE": self.file_mb * _MEBIBYTE,
            "RLIMIT_NOFILE": self.open_files,
        }


class IsolationSettings(BaseSettings):
    """The operator's settings for what a job finds around it on the worker's machine."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    isolation: Isolation = Field(
        default=Isolation.PREFERRED,
        description="Whether each job runs in a room of its own, where it finds nothing of other jobs and of "
        "the service. `required`: a worker whose machine can't do that does not start. `preferred`: the logs "
        "and `/readyz` say what is missing. On ECS each job is alone in its task, so `off` is enough there.",
    )
    visible_directories: GroupRoots = Field(
        default_factory=dict,
        description="More directories that jobs can read in their room, such as `/cvmfs`, written as in "
        "`JOBS_DATA_ROOTS`. The system's directories and data roots need no mention.",
    )
    writable_directories: GroupRoots = Field(
        default_factory=dict,
        description="Directories that jobs can write in their room, beside their own, written as in "
        "`JOBS_DATA_ROOTS`.",
    )
    visible_variables: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="More environment variables of the worker that workflows see, separated by ','; a name "
        "may end in `*`. Others are the locale, proxies and certificates, and what conda and modules need.",
    )
    room_network: dict[str, Network] = Field(
        default={},
        description="What jobs reach in their room, by group, as JSON, where `*` stands for every other "
        'group: `{"*": "own", "intranet": "host"}`. `own`: the world, but not the machine, Prefect\'s server '
        "and the metadata services of clouds; it takes `slirp4netns`. `none`: nothing. `host`: what the "
        "machine reaches. When absent: `own`, and `host` for groups whose rule jobs run on a cluster.",
    )
    closed_networks: Annotated[tuple[IPv4Network, ...], NoDecode] = Field(
        default=(),
        description="More addresses that jobs with a network of their own do not reach, such as "
        "`10.1.2.0/24`, separated by ','.",
    )
    limits: dict[str, Limits] = Field(
        default={},
        description="Limits of a job by group, as JSON, where `*` stands for every other group: "
        '`{"*": {"memory_mb": 65536, "processes": 4096, "file_mb": 524288, "open_files": 4096}}`. Memory is '
        "that of the job where the worker can make control groups, and that of each process elsewhere; open "
        "files are those of each process. When absent: the machine's memory, 8192 processes, files of 1 TiB, "
        "65536 open files.",
    )

    @field_validator("visible_variables", "closed_networks", mode="before")
    @classmethod
    def _split_by_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    def visible_directories_of(self, group: str) -> tuple[Path, ...]:
        return roots_of(self.visible_directories, group)

    def writable_directories_of(self, group: str) -> tuple[Path, ...]:
        return roots_of(self.writable_directories, group)

    def network_of(self, group: str, *, is_on_cluster: bool = False) -> Network:
        """A workflow on a cluster has to be reached by its nodes."""
        default = Network.HOST if is_on_cluster else Network.OWN
        return self.room_network.get(group) or self.room_network.get(EVERY_GROUP) or default

    def networks(self) -> set[Network]:
        """Those that jobs on a worker's own machine may need."""
        wanted = set(self.room_network.values())
        return wanted if EVERY_GROUP in self.room_network else {*wanted, Network.OWN}

    def limits_of(self, group: str) -> Mapping[str, int]:
        """By their names in getrlimit(2)."""
        limits = self.limits.get(group) or self.limits.get(EVERY_GROUP) or Limits()
        return limits.by_resource()


def record_missing(home: Path, missing: list[str] | None) -> None:
    """Save what this machine lacks to keep jobs apart, for the jobs API; None if it shall not."""
    record = home / _RECORDS / f"{socket.gethostname()}.json"
    if missing is None:
        record.unlink(missing_ok=True)
        return
    record.parent.mkdir(parents=True, exist_ok=True)
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps(missing))
    partial.replace(record)


def read_missing(home: Path) -> list[str] | None:
    """What machines with a worker lack; None if no worker has said anything yet."""
    found: list[str] | None = None
    for record in sorted((home / _RECORDS).glob("*.json")):
        try:
            found = (found or []) + _NAMES.validate_json(record.read_bytes())
        except (OSError, ValueError):
            continue
    return None if found is None else list(dict.fromkeys(found))
