"""What the reconciler and the worker cost with many jobs: `python -m tests.benchmarks.reconciling [N …]`.

A real Prefect server on PostgreSQL and the real ECS worker; moto's server answers for ECS, faster than
AWS does and without its limits, so the figures are the share of this service.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    temporary_settings,
)
from prefect.states import Scheduled

from deployments.ecs import ClusterSettings
from deployments.ecs_tasks import EcsTasks
from deployments.local import PROJECT
from deployments.processes import run_to_end
from deployments.reconciler import Reconciler
from deployments.verdicts import GracePeriods
from tests.api.servers import prefect_server
from tests.ecs.agent import Agent
from tests.ecs.aws import AUTH_STRING, CLUSTER, FAMILY, aws_account
from tests.ecs.conftest import EcsStack

_CLIENTS = 16
_GRACE = GracePeriods(*(timedelta(days=1) for _ in range(4)))


def main() -> None:
    counts = [int(argument) for argument in sys.argv[1:]] or [100, 1000]
    with tempfile.TemporaryDirectory() as directory, ExitStack() as running:
        home = Path(directory)
        (home / "server").mkdir()
        url = running.enter_context(
            prefect_server(home / "server", PREFECT_SERVER_API_AUTH_STRING=AUTH_STRING)
        )
        aws = running.enter_context(aws_account())
        agent = Agent(aws, home)  # never entered: no task does anything
        stack = EcsStack(home, aws, url, agent, "http://127.0.0.1:9")
        register = ["-m", "deployments", "register", "--work-pool", "ecs"]
        run_to_end("the registration", register, stack.environment, PROJECT)
        os.environ.update(aws.environment)
        with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: AUTH_STRING}):
            asyncio.run(_measure(stack, counts))


async def _measure(stack: EcsStack, counts: Sequence[int]) -> None:
    tasks = EcsTasks(ClusterSettings(cluster=CLUSTER, task_definition=FAMILY))
    async with get_client() as client:
        deployment = await client.read_deployment_by_name("snakemake-job/default")
        made = 0
        for count in counts:
            await _submit(client, deployment.id, count - made)
            made, before = count, len(stack.aws.backend.tasks.get(CLUSTER, {}))
            if before == 0:
                stack.start_worker()
            started = time.monotonic()
            while (there := len(stack.aws.backend.tasks.get(CLUSTER, {}))) < count:
                await asyncio.sleep(0.2)
            rate = (there - before) / (time.monotonic() - started)
            tasks_of_moto: list[Any] = list(stack.aws.backend.tasks[CLUSTER].values())
            for task in tasks_of_moto:
                task.created_at = datetime.now(UTC)  # which ECS tells, and moto does not
            await _look(client, tasks, count, rate)
        stack.worker.stop(30)


async def _look(client: PrefectClient, tasks: EcsTasks, count: int, rate: float) -> None:
    """While all jobs are Pending with a task, none of which needs anything."""
    process = psutil.Process()
    cpu, started = process.cpu_times(), time.monotonic()
    cases = await Reconciler(client, tasks, _GRACE).reconcile()
    seconds, used = time.monotonic() - started, process.cpu_times()
    print(  # noqa: T201 - what the program is for
        f"{count} open jobs: the worker started {rate:.1f} tasks/s; a look took {seconds:.1f} s, "
        f"{used.user - cpu.user:.1f} s of CPU with moto's share, and found {len(cases)} cases"
    )


async def _submit(client: PrefectClient, deployment_id: UUID, count: int) -> None:
    limit = asyncio.Semaphore(_CLIENTS)

    async def one() -> None:
        async with limit:
            await client.create_flow_run_from_deployment(deployment_id, state=Scheduled())

    await asyncio.gather(*(one() for _ in range(count)))


if __name__ == "__main__":
    main()
