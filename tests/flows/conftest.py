"""Directories for executions, and proof after every test that nothing of them still runs."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from flows.workspace.workspace import Workspace
from tests.flows.executions import Run, execute, new_workspace
from tests.flows.s3 import Bucket, s3_bucket
from tests.support import WORKFLOWS, children_that_run, processes_of, wait_until

hypothesis.settings.register_profile("flows", database=None, deadline=None, max_examples=60)
hypothesis.settings.load_profile("flows")

NewWorkspace = Callable[[], Workspace]


@pytest.fixture(autouse=True, scope="session")
def what_tests_make_is_visible(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Channels, images, modules and the tests' conda can be read in the room of a job, as /cvmfs would be."""
    visible = (tmp_path_factory.getbasetemp(), WORKFLOWS.parents[1], sys.prefix, sys.base_prefix)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JOBS_VISIBLE_DIRECTORIES", os.pathsep.join(map(str, visible)))
        yield


@pytest.fixture
def workspaces(tmp_path: Path) -> Iterator[NewWorkspace]:
    """Makes directories for jobs; fails when a process is left in one."""
    made: list[Workspace] = []

    def make() -> Workspace:
        made.append(new_workspace(tmp_path / "home"))
        return made[-1]

    yield make
    left = [process for workspace in made for process in processes_of(workspace.directory.name)]
    for process in left:
        process.kill()
    assert left == []
    wait_until(lambda: not supervisors(), "every supervisor has ended")


@pytest.fixture
def workspace(workspaces: NewWorkspace) -> Workspace:
    return workspaces()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """An S3 bucket, for the tests of one file."""
    with s3_bucket() as bucket:
        yield bucket


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The workflow `features`, executed once."""
    return execute(new_workspace(tmp_path_factory.mktemp("features")), WORKFLOWS / "features")


def supervisors() -> list[psutil.Process]:
    """Supervisors that this process has started and that still run."""
    return children_that_run("flows.snakemake_process.supervisor")
