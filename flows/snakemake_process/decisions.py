"""What a job and the service decide about the command line of Snakemake, beyond its arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
