"""What a job and the service decide about the command line of Snakemake, beyond its arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ClusterDecisions:
    """How rule jobs run on a cluster; `flows.snakemake_process.cluster` does it."""

    executor: str
    """The name of the executor plugin."""
    default_resources: Mapping[str, Any] = field(default_factory=dict)
    """The operator's; those of profiles and rules go before."""
    operator_resources: tuple[str, ...] = ()
    """Resources that only the operator sets."""
    least_memory_mb: int = 0
    """Less memory than that is never requested."""
    latency_wait: int | None = None
    """Seconds to wait for outputs, unless a profile sets it; None if the job does."""
    cancel_seconds: float = 60.0
    """How long the cluster may take to end jobs."""
    job_definition: str | None = None
    """AWS Batch: the definition of all rule jobs; None if the plugin registers one for each."""
    job_id: str = ""
    """AWS Batch: what the names of such rule jobs begin with."""
    job_tags: Mapping[str, str] = field(default_factory=dict)
    """AWS Batch: tags of each rule job that has this definition."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """How profiles and the configuration apply; `flows.snakemake_process.profiles` does it."""

    config_file: str | None = None
    """The job's `config`."""
    private_directory: str | None = None
    """For files that only this execution needs."""
    switched_off: tuple[str, ...] = ()
    """Options that the job sets to false."""
    names_software: bool = False
    """Whether the job itself names software deployment methods."""
    method_variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The environment variables that each allowed software deployment method needs."""
    cluster: ClusterDecisions | None = None
    """None if all rule jobs run on this machine."""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "Decisions":
        """From JSON, where the cluster is an object."""
        cluster = fields.get("cluster")
        return cls(**{**fields, "cluster": None if cluster is None else ClusterDecisions(**cluster)})
