"""Settings of the local stack. Prefect's own variables keep their names."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class LocalSettings(BaseSettings):
    """Where the local stack keeps its data, and its ports. It listens on loopback only."""

    model_config = SettingsConfigDict(env_prefix="JOBS_", populate_by_name=True)

    home: Path = Field(default=Path(".jobs"), description="Database, logs and the directories of all jobs.")
    api_port: int = Field(default=8000, ge=1, le=65535, description="Port of the jobs API.")
    prefect_port: int = Field(
        default=4200,
        ge=1,
        le=65535,
        validation_alias=AliasChoices("PREFECT_SERVER_API_PORT", "prefect_port"),
        description="Port of the Prefect server and its UI.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="An existing PostgreSQL as `postgresql+asyncpg://…`; one is started when absent.",
    )
    workflow_roots: str = Field(
        default_factory=lambda: str(Path.cwd()),
        description="Directories that may contain workflows (`workflow.path`), separated by ':'.",
    )
    prefect_file: Path = Field(
        default=Path(__file__).parent.parent / "prefect.yaml", description="Declares the groups."
    )
    concurrent_jobs: int = Field(default=10, ge=1, le=1000, description="Jobs that run at once.")

    drain_seconds: float = Field(
        default=0, ge=0, description="How long a worker that is stopped waits for its jobs."
    )

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def prefect_url(self) -> str:
        return f"http://127.0.0.1:{self.prefect_port}"
