"""Settings of the local stack. Prefect's own variables keep their names."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class LocalSettings(BaseSettings):
    """Data and ports of the local stack. All processes listen on loopback only."""

    model_config = SettingsConfigDict(env_prefix="JOBS_", populate_by_name=True)

    home: Path = Field(default=Path(".jobs"), description="The directory of the database, logs and all jobs.")
    api_port: int = Field(default=8000, ge=1, le=65535, description="Port of the jobs API.")
    prefect_port: int = Field(
        default=4200,
        ge=1,
        le=65535,
        validation_alias=AliasChoices("PREFECT_SERVER_API_PORT", "prefect_port"),
        description="Port of the Prefect server and its UI.",
    )
    prefect_workers: int = Field(
        default=1,
        ge=1,
        le=32,
        description="Processes of the Prefect server that answer requests. More than one need the extra "
        "`scale`, and run its services in a process of their own.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="An existing PostgreSQL, as `postgresql+asyncpg://…`. Starts one when absent.",
    )
    workflow_roots: str = Field(
        default_factory=lambda: str(Path.cwd()),
        description="Directories that may contain workflows (`workflow.path`), separated by ':'.",
    )
    prefect_file: Path = Field(
        default=Path(__file__).parent.parent / "prefect.yaml",
        description="The file that declares the groups.",
    )
    concurrent_jobs: int = Field(
        default=10, ge=1, le=1000, description="Maximum number of jobs that run at once."
    )

    drain_seconds: float = Field(
        default=0, ge=0, description="How long a stopping worker waits for its jobs to end."
    )

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def prefect_url(self) -> str:
        return f"http://127.0.0.1:{self.prefect_port}"
