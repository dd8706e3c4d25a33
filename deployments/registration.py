"""Offers the flow: the work pool, its work queues and the groups that `prefect.yaml` declares.

A group is a deployment with a work queue of its own name. The queue's concurrency limit is the
group's: what is over it waits in order. (A deployment's own limit, in Prefect, lets each waiting
run try again every thirty seconds, in no order.)
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from pydantic import BaseModel, ConfigDict, Field

from deployments.local import PROJECT, WORK_POOL
from deployments.processes import run_to_end
from flows.worker import SnakemakeWorker

PREFECT_FILE = PROJECT / "prefect.yaml"


class WorkQueue(BaseModel):
    """A group's place in the work pool."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: int = Field(ge=1, description="Jobs of the queue with the lowest number go first.")
    concurrency_limit: int | None = Field(
        default=None, ge=0, description="How many jobs run at once; 0 holds the group, none is no limit."
    )


def register(environment: Mapping[str, str], prefect_file: Path = PREFECT_FILE) -> None:
    """Make or change everything that the file declares; doing it again changes nothing.

    `environment` names the Prefect server in `PREFECT_API_URL`. Raises `StackError`.
    """
    queues = work_queues(prefect_file)
    asyncio.run(_register_queues(environment["PREFECT_API_URL"], queues))
    deploy = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file)]
    run_to_end("the registration of prefect.yaml", deploy, {**os.environ, **environment}, PROJECT)


def work_queues(prefect_file: Path) -> dict[str, WorkQueue]:
    """The queues by name. Raises `ValueError` where one is declared wrongly."""
    content = yaml.safe_load(prefect_file.read_text())
    declared = content.get("definitions", {}).get("work_queues", {})
    return {name: WorkQueue.model_validate(queue) for name, queue in declared.items()}


async def _register_queues(api_url: str, queues: Mapping[str, WorkQueue]) -> None:
    async with PrefectClient(api_url) as client:
        template = SnakemakeWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):  # a worker that starts meanwhile makes it as well
            await client.create_work_pool(
                WorkPoolCreate(name=WORK_POOL, type=SnakemakeWorker.type, base_job_template=template)
            )
        # Prefect moves the others down when a priority is taken: from the first to the last, all come right.
        for name, queue in sorted(queues.items(), key=lambda item: item[1].priority):
            try:
                known = await client.read_work_queue_by_name(name, WORK_POOL)
            except ObjectNotFound:
                known = await client.create_work_queue(name, work_pool_name=WORK_POOL)
            await client.update_work_queue(
                known.id, priority=queue.priority, concurrency_limit=queue.concurrency_limit
            )
