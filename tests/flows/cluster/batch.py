"""AWS Batch and S3 on loopback: moto's server, with a Batch that runs each job's command as a process.

    python -m tests.flows.cluster.batch PORT DIRECTORY PATH

Each job gets an empty directory below DIRECTORY, and PATH, as a container gets its own disk and image.
"""

import datetime
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3

from deployments.local import PROJECT
from flows.environments.environment import Environment
from tests.conftest import free_ports
from tests.support import wait_until

REGION = "eu-central-1"
QUEUE = "rule-jobs"
_QUEUE_SECONDS = 0.5
_STOP_SECONDS = 5.0
_KILLED = 137


@dataclass
class Batch:
    """A running Batch, and what AWS's variables have to say to reach it."""

    directory: Path
    variables: dict[str, str]

    @cached_property
    def client(self) -> Any:
        return self._of("batch")

    @cached_property
    def bucket(self) -> str:
        """A new one. It never becomes empty: Snakemake's storage plugin removes one that does."""
        name = f"rule-jobs-{uuid4()}"
        s3 = self._of("s3")
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=name, Key="kept", Body=b"")
        return name

    def text_of(self, key: str, bucket: str | None = None) -> str:
        found = self._of("s3").get_object(Bucket=bucket or self.bucket, Key=key)
        return str(found["Body"].read().decode())

    def statuses(self) -> list[str]:
        names = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")
        listed = (self.client.list_jobs(jobQueue=QUEUE, jobStatus=name)["jobSummaryList"] for name in names)
        return [job["status"] for jobs in listed for job in jobs]

    def register(self, name: str) -> None:
        """A job definition whose command, environment and size come with each job."""
        properties = {"image": "rule-jobs:1", "command": ["false"], "vcpus": 1, "memory": 2048}
        self.client.register_job_definition(
            jobDefinitionName=name, type="container", containerProperties=properties
        )

    def definitions(self) -> set[str]:
        """Those that are in use."""
        found = self.client.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
        return {each["jobDefinitionArn"] for each in found}

    def job(self, id: str) -> dict[str, Any]:
        (found,) = self.client.describe_jobs(jobs=[id])["jobs"]
        return dict(found)

    def create_queue(self) -> str:
        """Its ARN."""
        role = self._of("iam").create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        environment = self.client.create_compute_environment(
            computeEnvironmentName="all", type="UNMANAGED", state="ENABLED", serviceRole=role
        )
        order = [{"order": 1, "computeEnvironment": environment["computeEnvironmentArn"]}]
        queue = self.client.create_job_queue(
            jobQueueName=QUEUE, state="ENABLED", priority=1, computeEnvironmentOrder=order
        )
        return str(queue["jobQueueArn"])

    def _of(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.variables["AWS_ENDPOINT_URL"],
            region_name=REGION,
            aws_access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
        )


@contextmanager
def batch(directory: Path, environment: Environment) -> Iterator[Batch]:
    """Batch, as long as the context is entered; its jobs have the programs of `environment`."""
    directory.mkdir(parents=True)
    (port,) = free_ports(1)
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
    }
    command = [sys.executable, "-m", "tests.flows.cluster.batch", str(port), str(directory)]
    with (directory / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, f"{environment.python.parent}:/usr/bin:/bin"],
            cwd=PROJECT,
            env={**os.environ, **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        running = Batch(directory, variables)
        wait_until(lambda: b"Running on" in (directory / "server.log").read_bytes(), "moto's server answers")
        yield running
    finally:
        server.terminate()
        server.wait(_STOP_SECONDS)


def serve(port: int, directory: Path, path: str) -> None:
    """Run moto's server until the end of the process."""
    from moto.server import main  # noqa: PLC0415 - only the server needs it, and it takes a second

    of_role = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    run_jobs_as_processes(directory, {**of_role, "PATH": path})
    main(["-H", "127.0.0.1", "-p", str(port)])


def run_jobs_as_processes(directory: Path, variables: Mapping[str, str]) -> None:
    """Change moto in this process: its Batch runs the command of each job, with these variables."""
    from moto.batch.models import Job  # noqa: PLC0415 - only the server needs it, and it takes a second
    from moto.batch_simple.models import BatchSimpleBackend  # noqa: PLC0415 - as above
    from moto.core.config import default_user_config  # noqa: PLC0415 - as above

    default_user_config["batch"] = {"use_docker": False}
    plain_describe = Job.describe

    def run(backend: Any, include_start_attempt: bool, job: Any) -> None:
        backend.backend._jobs[job.job_id] = job
        job.status = "RUNNABLE"
        threading.Thread(target=_contain, args=[job, directory, variables], daemon=True).start()

    def terminate(job: Any, reason: str) -> None:
        if not job.job_stopped:
            job.job_stopped_reason, job.stop = reason, True

    def describe(job: Any) -> Any:
        described = plain_describe(job)
        if "container" in described:
            described["container"]["resourceRequirements"] = job._get_container_property(
                "resourceRequirements", []
            )
            if job.job_stopped:
                described["container"]["exitCode"] = job.exit_code
        return described

    changes = {
        "terminate": terminate,
        "describe": describe,
        "_stop_attempt": lambda _: None,
        # The state is that of the process, and not of moto's transitions.
        "status": property(_state, _set_state),
    }
    for name, change in changes.items():
        setattr(Job, name, change)
    setattr(BatchSimpleBackend, "_mark_job_as_finished", run)  # noqa: B010 - a method of moto


def _state(job: Any) -> str:
    return str(job.__dict__.get("_state", "SUBMITTED"))


def _set_state(job: Any, state: Any) -> None:
    job.__dict__["_state"] = getattr(state, "value", state)


def _contain(job: Any, directory: Path, of_image: Mapping[str, str]) -> None:
    """Run the command of a job as Batch runs a container."""
    disk = directory / job.job_id
    disk.mkdir()
    time.sleep(_QUEUE_SECONDS)
    if job.stop:
        _finish(job, _KILLED, job.job_stopped_reason)
        return
    named = {entry["name"]: entry["value"] for entry in job._get_container_property("environment", [])}
    variables = {**named, **of_image, "HOME": str(disk), "AWS_BATCH_JOB_ID": job.job_id}
    job.job_started_at = datetime.datetime.now()
    job.log_stream_name = job._stream_name
    job._start_attempt()
    job.status = "RUNNING"
    with disk.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            job._get_container_property("command", []),
            cwd=disk,
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while process.poll() is None:
        if job.stop:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.05)
    code = process.returncode
    reason = job.job_stopped_reason or "Essential container in task exited"
    _finish(job, code if code >= 0 else 128 - code, reason)


def _finish(job: Any, code: int, reason: str) -> None:
    job.exit_code, job.job_stopped_reason = code, reason
    job._mark_stopped(success=code == 0)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
