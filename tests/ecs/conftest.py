"""One stack whose jobs are ECS tasks: Prefect's server and ECS worker, the facade and the reconciler."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import httpx
import psutil
import pytest

from deployments.local import PROJECT, online_since
from deployments.processes import StackProcess, python, run_to_end
from tests.api.servers import facade_process, prefect_server
from tests.conftest import ENVIRONMENTS, free_ports
from tests.ecs.agent import Agent
from tests.ecs.aws import (
    AUTH_STRING,
    BUCKET,
    CLUSTER,
    FAMILY,
    GATEWAY_SECRET,
    QUEUE,
    STORAGE_ROLE,
    Aws,
    aws_account,
)
from tests.ecs.rule_jobs import BATCH_ROLE, BATCH_SECONDS, GROUP, RULE_JOBS, rule_jobs_on_batch
from tests.support import JobsClient, wait_until

_STOP_SECONDS = 20.0
LIMIT = 2
"""Of jobs that the worker has taken and has no task for yet."""


@dataclass
class EcsStack:
    """What runs, and how programs of the service see it."""

    home: Path
    aws: Aws
    prefect_api_url: str
    agent: Agent
    facade_url: str
    executors: dict[str, str] = field(default_factory=dict)
    """The variable that declares where rule jobs run."""
    worker: StackProcess = field(init=False)
    reconciler: StackProcess = field(init=False)
    _numbers: Iterator[int] = field(default_factory=count, init=False)

    @property
    def environment(self) -> dict[str, str]:
        """Of the programs that stand on the cluster beside the jobs."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        return {
            **inherited,
            **self.aws.environment,
            **self.executors,
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_API_URL": self.prefect_api_url,
            "PREFECT_API_AUTH_STRING": AUTH_STRING,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "2",
            "PREFECT_WORKER_WEBSERVER_PORT": str(free_ports(1)[0]),
            "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME": QUEUE,
            "JOBS_ECS_CLUSTER": CLUSTER,
            "JOBS_ECS_TASK_DEFINITION": FAMILY,
            "JOBS_ECS_SUBNETS": self.aws.subnet,
            "JOBS_ECS_SECURITY_GROUPS": self.aws.security_group,
            "JOBS_ECS_GATEWAY_URL": self.facade_url,
            "JOBS_GATEWAY_SECRET": GATEWAY_SECRET,
            "JOBS_ECS_RECONCILE_SECONDS": "1",
            "JOBS_ECS_SETTLE_SECONDS": "4",
            "JOBS_ECS_LOST_SECONDS": "4",
            "JOBS_ECS_SILENT_SECONDS": "120",
            "JOBS_ECS_CANCEL_SECONDS": "60",
        }

    def start_reconciler(self, *options: str, **variables: str) -> StackProcess:
        command = ["-m", "deployments", "reconcile", *options]
        name = f"reconciler-{next(self._numbers)}"
        return StackProcess.start(name, python(*command), self.environment | variables, self.home / "logs")

    @contextmanager
    def without_reconciler(self) -> Iterator[None]:
        os.kill(self.reconciler.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.reconciler.pid, signal.SIGCONT)

    @contextmanager
    def reconciled_with(self, **variables: str) -> Iterator[StackProcess]:
        """Another reconciler, which has looked once, in the place of the usual one."""
        with self.without_reconciler():
            other = self.start_reconciler(**variables)
            try:
                wait_until(lambda: "Looked at all jobs" in other.log.read_text(), "it has looked")
                yield other
            finally:
                other.stop(10)

    def start_worker(self) -> None:
        command = ["-m", "deployments.ecs_worker", "--limit", str(LIMIT), "--with-healthcheck"]
        started_at = datetime.now(UTC)
        self.worker = StackProcess.start("worker", python(*command), self.environment, self.home / "logs")
        wait_until(
            lambda: online_since(started_at, self.prefect_api_url, "ecs", AUTH_STRING),
            "the ECS worker is ready",
        )


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EcsStack]:
    home = tmp_path_factory.mktemp("ecs")
    for name in ("server", "tasks", "facade"):
        (home / name).mkdir()
    with ExitStack() as running:
        url = running.enter_context(
            prefect_server(
                home / "server",
                PREFECT_SERVER_API_AUTH_STRING=AUTH_STRING,
                PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS="1",
            )
        )
        aws = running.enter_context(aws_account())
        rule_jobs = rule_jobs_on_batch(aws, home / RULE_JOBS)
        of_tasks = {**rule_jobs, "JOBS_VISIBLE_VARIABLES": "AWS_ENDPOINT_URL"}
        agent = running.enter_context(Agent(aws, home / "tasks", of_tasks))
        variables = {
            **aws.environment,
            "PREFECT_API_AUTH_STRING": AUTH_STRING,
            "JOBS_STORAGE_URL": f"s3://{BUCKET}/service",
            "JOBS_MACHINES": "fargate",
            "JOBS_GATEWAY_SECRET": GATEWAY_SECRET,
            "JOBS_GATEWAY_STORAGE_ROLE_ARN": STORAGE_ROLE,
            "JOBS_GATEWAY_BATCH_ROLE_ARNS": json.dumps({GROUP: BATCH_ROLE}),
            "JOBS_GATEWAY_BATCH_SECONDS": str(BATCH_SECONDS),
            **rule_jobs,
        }
        facade_url = running.enter_context(facade_process(url, home / "facade", **variables))
        stack = EcsStack(home, aws, url, agent, facade_url, rule_jobs)
        register = ["-m", "deployments", "register", "--work-pool", "ecs"]
        of_image = {"JOBS_ENVIRONMENTS_DIRECTORY": str(ENVIRONMENTS)}
        run_to_end("the registration", register, stack.environment | of_image, PROJECT)
        bake = {**os.environ, "JOBS_ENVIRONMENTS_DIRECTORY": str(ENVIRONMENTS)}
        run_to_end("making the environment", ["-m", "deployments", "environments"], bake, PROJECT)
        stack.start_worker()
        stack.reconciler = stack.start_reconciler()
        running.callback(stack.reconciler.stop, _STOP_SECONDS)
        running.callback(lambda: stack.worker.stop(_STOP_SECONDS))
        yield stack


@pytest.fixture(scope="package")
def jobs(stack: EcsStack) -> Iterator[JobsClient]:
    with httpx.Client(base_url=stack.facade_url, timeout=30) as http:
        yield JobsClient(http)


@pytest.fixture(scope="package")
def prefect_api(stack: EcsStack) -> Iterator[httpx.Client]:
    user, _, password = AUTH_STRING.partition(":")
    with httpx.Client(base_url=stack.prefect_api_url, auth=(user, password), timeout=30) as http:
        yield http


@pytest.fixture(autouse=True)
def nothing_stays_behind(stack: EcsStack) -> Iterator[None]:
    """After each test, AWS is itself again, no task lives, and no process works on a task's disk."""
    yield
    stack.agent.behave()
    tasks = str(stack.home / "tasks")
    wait_until(lambda: not stack.agent.living(), "no task lives any more", seconds=60)
    wait_until(
        lambda: (
            not any((process.info["cwd"] or "").startswith(tasks) for process in psutil.process_iter(["cwd"]))
        ),
        "no process works on the disk of a task",
    )
