"""Registers work pool, work queues and groups in Prefect, as `prefect.yaml` and the settings declare them.

A group is a deployment with a work queue of its own name. The queue's concurrency limit is the
group's: further jobs wait in order. (Over a deployment's own limit, Prefect lets each run try again
every thirty seconds, in no order.)
"""

import asyncio
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from deployments.ecs import ECS, WorkPoolSettings, base_job_template
from deployments.local import PROJECT, WORK_POOL
from deployments.processes import run_to_end
from flows.worker.worker import SnakemakeWorker

PREFECT_FILE = PROJECT / "prefect.yaml"


class WorkQueue(BaseModel):
    """Priority and limit of a group."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: int = Field(ge=1, description="Jobs of the queue with the lowest number go first.")
    concurrency_limit: int | None = Field(
        default=None, ge=0, description="Jobs that run at once. 0 pauses the group; no limit when absent."
    )


class RegistrationSettings(BaseSettings):
    """Groups that an operator changes without changing prefect.yaml."""

    model_config = SettingsConfigDict(env_prefix="JOBS_", frozen=True)

    groups: dict[str, WorkQueue] = Field(
        default={},
        description="Work queues by group, as JSON. They replace those of prefect.yaml; other names become "
        "new groups.",
    )
    concurrent_jobs: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Maximum number of jobs that run at once, in all groups; none by default, `make up` sets "
        "it. A group without a limit of its own leaves one place for each other group.",
    )


def register(
    environment: Mapping[str, str],
    prefect_file: Path = PREFECT_FILE,
    work_pool: str = WORK_POOL,
    groups: Mapping[str, WorkQueue] = MappingProxyType({}),
    places: int | None = None,
) -> None:
    """Create or update everything that the file and `groups` declare. It is idempotent.

    `places` are the jobs that all workers run at once, if that is limited: then a group without a limit
    leaves a place for each other group.

    The groups are registered in `work_pool`, whichever the file names. `environment` names the Prefect
    server in `PREFECT_API_URL`. Raises `StackError`, and `ValidationError` if a setting of the
    work pool is wrong.
    """
    queues = shared(work_queues(prefect_file) | dict(groups), places)
    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
        asyncio.run(_register_queues(work_pool, queues, places))
    with tempfile.TemporaryDirectory() as directory:
        in_pool = Path(directory) / "prefect.yaml"
        in_pool.write_text(yaml.safe_dump(_offered_in(work_pool, prefect_file, groups)))
        deploy = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(in_pool)]
        run_to_end("the registration of prefect.yaml", deploy, {**os.environ, **environment}, PROJECT)


def work_queues(prefect_file: Path) -> dict[str, WorkQueue]:
    """The queues by name. Raises `ValueError` where one is declared wrongly."""
    content = yaml.safe_load(prefect_file.read_text())
    declared = content.get("definitions", {}).get("work_queues", {})
    return {name: WorkQueue.model_validate(queue) for name, queue in declared.items()}


def groups_of(prefect_file: Path) -> set[str]:
    """The names of the groups that the file declares."""
    return {deployment["name"] for deployment in yaml.safe_load(prefect_file.read_text())["deployments"]}


def shared(queues: Mapping[str, WorkQueue], places: int | None) -> dict[str, WorkQueue]:
    """The queues, so that none without a limit of its own can take all `places`."""
    if places is None or len(queues) < 2:
        return dict(queues)
    most = max(1, places - (len(queues) - 1))
    return {
        name: queue
        if queue.concurrency_limit is not None
        else queue.model_copy(update={"concurrency_limit": most})
        for name, queue in queues.items()
    }


def _offered_in(work_pool: str, prefect_file: Path, groups: Iterable[str]) -> dict[str, Any]:
    """The file with all groups. Groups that it does not declare are copies of its first one."""
    content: dict[str, Any] = yaml.safe_load(prefect_file.read_text())
    first, *_ = deployments = content["deployments"]
    known = {deployment["name"] for deployment in deployments}
    for group in groups:
        if group not in known:
            place = first["work_pool"] | {"work_queue_name": group}
            deployments.append(first | {"name": group, "work_pool": place})
    for deployment in deployments:
        deployment["work_pool"]["name"] = work_pool
    return content


async def _register_queues(work_pool: str, queues: Mapping[str, WorkQueue], places: int | None) -> None:
    async with get_client() as client:
        await _register_work_pool(client, work_pool, places)
        # Prefect moves others down when a priority is taken, so queues are updated in this order.
        for name, queue in sorted(queues.items(), key=lambda item: item[1].priority):
            try:
                known = await client.read_work_queue_by_name(name, work_pool)
            except ObjectNotFound:
                known = await client.create_work_queue(name, work_pool_name=work_pool)
            await client.update_work_queue(
                known.id, priority=queue.priority, concurrency_limit=queue.concurrency_limit
            )


async def _register_work_pool(client: PrefectClient, work_pool: str, places: int | None) -> None:
    """Write the project's template, and so undo changes that were made in Prefect."""
    if work_pool == ECS:
        template = base_job_template(WorkPoolSettings())  # type: ignore[call-arg]  # from the environment
    else:
        template = SnakemakeWorker.get_default_base_job_template()
    with suppress(ObjectAlreadyExists):  # a worker that starts meanwhile creates it as well
        await client.create_work_pool(
            WorkPoolCreate(name=work_pool, type=work_pool, base_job_template=template)
        )
    await client.update_work_pool(
        work_pool, WorkPoolUpdate(base_job_template=template, concurrency_limit=places)
    )
