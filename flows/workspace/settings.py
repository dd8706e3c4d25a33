"""Settings for where jobs are stored, and where workflows may come from."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flows.contract.addresses import SourceSettings
from flows.contract.bundles import BundleLimits
from flows.contract.storage import StorageSettings
from flows.workspace.git import CheckoutSettings


class WorkspaceSettings(StorageSettings, SourceSettings, BundleLimits, CheckoutSettings):
    """The operator's settings for the directories of jobs."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    checksum_max_bytes: int = Field(
        default=1 << 32,
        ge=0,
        le=1 << 50,
        description="Outputs of more bytes have no checksum, because that would delay the end of the job.",
    )
    profiles_directory: Path | None = Field(
        default=None, description="A directory of Snakemake profiles that jobs can use by name."
    )
