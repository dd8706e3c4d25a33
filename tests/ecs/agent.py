"""What ECS does with a task, on this machine: its command becomes a process, and its states are told.

A task goes PROVISIONING, RUNNING, STOPPED, as moto's server answers it, and each change is an event
of EventBridge. The process sees what a container would: the environment of the task definition, the
overrides of RunTask, and a disk that is gone when the task is.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from deployments.local import PROJECT
from tests.conftest import ENVIRONMENTS
from tests.ecs.aws import CLUSTER, Aws

_LOOK_SECONDS = 0.05
_STOP_SECONDS = 30.0


@dataclass
class Container:
    """The process of a task."""

    process: subprocess.Popen[bytes]
    disk: Path
    is_stopping: bool = False
    kill_at: float = 0.0
    seen: set[psutil.Process] = field(default_factory=set)
    """What has ever run in it, as far as somebody looked."""

    def kill(self) -> None:
        """With all that it has started, as the end of a container does."""
        for process in {*self.seen, *self.processes()}:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """What runs in it; the first process last."""
        try:
            first = psutil.Process(self.process.pid)
            return [*first.children(recursive=True), first]
        except psutil.NoSuchProcess:
            return []


@dataclass
class Agent:
    """Runs the tasks of the cluster, as long as it is entered."""

    aws: Aws
    home: Path
    variables: dict[str, str] = field(default_factory=dict)
    """Of the task definition, beside those that it has itself."""
    containers: dict[str, Container] = field(default_factory=dict)
    is_held: bool = False
    """Tasks stay PROVISIONING."""
    start_failure: str | None = None
    """Why tasks do not start."""
    loses_events: bool = False
    stop_seconds: float = _STOP_SECONDS
    """ECS kills a container that has not ended after `stopTimeout`, 30 seconds by default."""
    command: list[str] | None = None
    """Run instead of what the tasks say."""
    told_exit_code: int | None = None
    """Told instead of what the processes end with."""

    def __enter__(self) -> "Agent":
        self._seen: dict[str, str] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ecs-agent")
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join()
        for container in self.containers.values():
            container.kill()

    def behave(self) -> None:
        """Do from now on what ECS does on a good day."""
        self.is_held = self.loses_events = False
        self.start_failure = self.command = self.told_exit_code = None
        self.stop_seconds = _STOP_SECONDS

    def living(self) -> list[str]:
        return [arn for arn in self.aws.backend.tasks.get(CLUSTER, {}) if self._seen.get(arn) != "STOPPED"]

    def has_started(self, flow_run_id: str) -> bool:
        return any(task["taskArn"] in self.containers for task in self.aws.tasks_of(flow_run_id))

    def container_of(self, flow_run_id: str) -> Container:
        (task,) = self.aws.tasks_of(flow_run_id)
        return self.containers[task["taskArn"]]

    def _run(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            for arn, task in list(self.aws.backend.tasks.get(CLUSTER, {}).items()):
                self._attend_to(arn, task)

    def _attend_to(self, arn: str, task: Any) -> None:
        container = self.containers.get(arn)
        match self._seen.get(arn):
            case None:
                task.created_at = datetime.now(UTC)
                for each in task.containers:
                    each.exitCode = None
                self._tell(arn, task, "PROVISIONING")
            case "PROVISIONING" if task.desired_status == "STOPPED":
                self._stopped(arn, task, "UserInitiated", task.stopped_reason)
            case "PROVISIONING" if self.start_failure is not None:
                task.containers = []
                self._stopped(arn, task, "TaskFailedToStart", self.start_failure)
            case "PROVISIONING" if not self.is_held:
                self.containers[arn] = self._start(arn, task)
                self._tell(arn, task, "RUNNING")
            case "RUNNING" if container is not None:
                self._watch(arn, task, container)
            case _:
                pass

    def _watch(self, arn: str, task: Any, container: Container) -> None:
        container.seen.update(container.processes())
        if task.desired_status == "STOPPED" and not container.is_stopping:
            task.status = "STOPPING"
            container.is_stopping = True
            container.kill_at = time.monotonic() + self.stop_seconds
            container.process.send_signal(signal.SIGTERM)
        elif container.is_stopping and time.monotonic() > container.kill_at:
            container.kill()
        exit_code = container.process.poll()
        if exit_code is not None:
            container.kill()
            shutil.rmtree(container.disk, ignore_errors=True)
            (only,) = task.containers
            ended_with = exit_code if exit_code >= 0 else 128 - exit_code
            only.exitCode = ended_with if self.told_exit_code is None else self.told_exit_code
            reason = task.stopped_reason or "Essential container in task exited"
            code = "UserInitiated" if container.is_stopping else "EssentialContainerExited"
            self._stopped(arn, task, code, reason)

    def _start(self, arn: str, task: Any) -> Container:
        definition = self.aws.ecs.describe_task_definition(taskDefinition=task.task_definition_arn)
        (container,) = definition["taskDefinition"]["containerDefinitions"]
        (override,) = task.overrides["containerOverrides"]
        assert override["name"] == container["name"]
        name = arn.rpartition("/")[2]
        disk = self.home / name
        disk.mkdir()
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command or override["command"],
                env={
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                    "HOME": str(disk),
                    "TMPDIR": str(disk),
                    "JOBS_HOME": str(disk / "jobs-home"),
                    "JOBS_ENVIRONMENTS_DIRECTORY": str(ENVIRONMENTS),  # the image's own, where it is baked
                    "JOBS_WRITABLE_DIRECTORIES": str(self.home.parent.parent),  # where rules leave marks
                    **self.aws.environment_without_role,
                    **_environment(container),
                    **self.variables,
                    **_environment(override),
                },
                cwd=PROJECT,  # the image's working directory
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return Container(process, disk)

    def _stopped(self, arn: str, task: Any, code: str, reason: str) -> None:
        task.desired_status = "STOPPED"
        task.stop_code, task.stopped_reason, task.stopped_at = code, reason, datetime.now(UTC)
        self._tell(arn, task, "STOPPED")

    def _tell(self, arn: str, task: Any, status: str) -> None:
        self._seen[arn] = status
        if task.desired_status != "STOPPED" or status == "STOPPED":
            task.status = status
        if self.loses_events:
            return
        detail = self.aws.task(arn) | {"lastStatus": status, "group": task.group}
        self.aws.events.put_events(
            Entries=[
                {
                    "Source": "aws.ecs",
                    "DetailType": "ECS Task State Change",
                    "Detail": json.dumps(detail, default=str),
                }
            ]
        )


def _environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container.get("environment", [])}
