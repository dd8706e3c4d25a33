"""What people see of a job in the Prefect UI: the operator's settings, and the addresses that it links to."""

from urllib.parse import quote
from uuid import UUID

from pydantic import Field, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict


class PresentationSettings(BaseSettings):
    """The operator's settings for the artifacts of jobs."""

    model_config = SettingsConfigDict(env_prefix="JOBS_", frozen=True)

    public_url: HttpUrl | None = Field(
        default=None,
        description="The address of the jobs API as people's browsers reach it. Artifacts in the Prefect UI "
        "link to it; without it, they have no links.",
    )
    artifacts: bool = Field(
        default=True,
        description="Whether jobs show their progress, a summary, their outputs and their plots as "
        "artifacts in the Prefect UI.",
    )

    def links(self, job_id: UUID) -> "Links | None":
        return None if self.public_url is None else Links(f"{str(self.public_url).rstrip('/')}/jobs/{job_id}")


class Links:
    """What the jobs API shows of one job in a browser."""

    def __init__(self, job: str) -> None:
        self.graph = f"{job}/graph.svg"
        self.usage = f"{job}/usage.svg"
        self._outputs = f"{job}/outputs"

    def output(self, path: str) -> str:
        """The file, shown instead of downloaded."""
        return f"{self._outputs}/{quote(path)}?view=true"
