"""One real stack for all tests of the service: PostgreSQL, Prefect server, worker and jobs API."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployments.local import PROJECT, LocalStack
from deployments.settings import LocalSettings
from tests.flows.environments.packages import write_wheel
from tests.support import WORKFLOWS, JobsClient

ENVIRONMENTS = PROJECT / "build" / "environments"
"""Made once for all stacks of the tests, and kept for the next run."""

JOBS_AT_ONCE = 20
"""Of the group `default`: it leaves one place for the other group."""
"""Taken by the worker of the stack."""

SECRET_BLOCKS = {"*": ["lab-key", "lab-absent", "lab-short"], "large": ["s3-access-key", "s3-secret-key"]}
"""The blocks that jobs of the stack may use, by group. A test makes those that it uses."""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The stack that `make up` starts, on free ports and a home of its own.

    Workflows may come from git servers of the tests, which listen on loopback, and environments may
    have the package `house_greeter`, which no index has.
    """
    roots = [WORKFLOWS, tmp_path_factory.getbasetemp()]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JOBS_GIT_ALLOW_SCHEMES", "https,http")
        environment.setenv("JOBS_GIT_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
        environment.setenv("JOBS_ENVIRONMENTS_DIRECTORY", str(ENVIRONMENTS))
        environment.setenv("JOBS_DATA_ROOTS", str(tmp_path_factory.getbasetemp()))
        environment.setenv("JOBS_PROJECT_ROOTS", str(tmp_path_factory.getbasetemp()))
        # Rules of the tests leave marks beside their jobs.
        environment.setenv("JOBS_WRITABLE_DIRECTORIES", str(tmp_path_factory.getbasetemp()))
        # Rules of this group use an S3 that listens on loopback.
        environment.setenv("JOBS_ROOM_NETWORK", '{"large": "host"}')
        environment.setenv("JOBS_SECRET_BLOCKS", json.dumps(SECRET_BLOCKS))
        wheels = tmp_path_factory.mktemp("wheels")
        write_wheel(wheels, "house_greeter", "1.0", "GREETING = 'Moin'\n")
        environment.setenv("UV_FIND_LINKS", str(wheels))
        settings = local_settings(tmp_path_factory.mktemp("home"), roots)
        with LocalStack(settings.model_copy(update={"concurrent_jobs": JOBS_AT_ONCE + 1})) as running:
            yield running


@pytest.fixture(scope="session")
def jobs(stack: LocalStack) -> Iterator[JobsClient]:
    """The jobs API of the stack."""
    with httpx.Client(base_url=stack.settings.api_url, timeout=30) as http:
        yield JobsClient(http)


@pytest.fixture(scope="session")
def prefect_api(stack: LocalStack) -> Iterator[httpx.Client]:
    """Prefect's own REST API, to see what it was really told."""
    user, _, password = stack.auth_string.partition(":")
    url = f"{stack.settings.prefect_url}/api"
    with httpx.Client(base_url=url, auth=(user, password), timeout=30) as http:
        yield http


def local_settings(home: Path, roots: list[Path]) -> LocalSettings:
    """Settings of a stack of its own: a new home, and ports that nobody uses."""
    api_port, prefect_port = free_ports(2)
    return LocalSettings(
        home=home,
        api_port=api_port,
        prefect_port=prefect_port,
        workflow_roots=os.pathsep.join(map(str, roots)),
    )


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
