"""How the Snakemake of a job gets credentials of AWS Batch where the job's task has none of its own.

AWS's configuration file names a program, which botocore runs again before credentials expire. The program
asks the facade with the token of the job, and reads it from a file: no command line has it.
"""

import json
import os
import shlex
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.contract.executors import AWS_BATCH, ClusterExecutor
from flows.environments.environment import Environment

_PROGRAM = Path("flows", "snakemake_process", "cluster", "credentials.py")


class BatchCredentialSettings(BaseSettings):
    """Where the head of a job gets its rights."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    batch_credentials_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Where a task asks for credentials of AWS Batch that are for its job only. The worker "
        "sets it for tasks on ECS.",
    )


def batch_variables(cluster: ClusterExecutor, environment: Environment, home: Path) -> dict[str, str]:
    """Variables with which AWS's clients in Snakemake find credentials; `home` is the job's HOME."""
    url = BatchCredentialSettings().batch_credentials_url
    if url is None or cluster.executor != AWS_BATCH:
        return {}
    directory = home / ".aws"
    directory.mkdir(exist_ok=True)
    request, configuration = directory / "prefect-snakemake.json", directory / "config"
    _write(request, json.dumps({"url": url, "auth": os.environ.get("PREFECT_API_AUTH_STRING", "")}))
    program = [str(environment.python), str(environment.runtime / _PROGRAM), str(request)]
    region = cluster.settings.get("region")
    lines = ["[default]", f"credential_process = {shlex.join(program)}", f"region = {region}"]
    _write(configuration, "\n".join(lines if region else lines[:-1]))
    return {"AWS_CONFIG_FILE": str(configuration)}


def _write(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
