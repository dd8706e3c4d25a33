"""Who holds a job's directory: the sign of life of its flow process."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from flows.workspace.settings import WorkspaceSettings
from flows.workspace.staging import StageError
from flows.workspace.workspace import Workspace
from tests.support import wait_until

JOB_ID = uuid4()

HOLDER = """
import sys
from pathlib import Path
from uuid import UUID
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace

Workspace(WorkspaceSettings(home=Path(sys.argv[1])), UUID(sys.argv[2])).lock()
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(WorkspaceSettings(home=tmp_path), JOB_ID)


@contextmanager
def another_holder(home: Path) -> Iterator[int]:
    """The pid of another process that holds the directory; it is killed at the end, if it was not before."""
    command = [sys.executable, "-c", HOLDER, str(home), str(JOB_ID)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        try:
            yield process.pid
        finally:
            process.kill()


ASKER = """
import sys
from pathlib import Path
from uuid import UUID
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace

workspace = Workspace(WorkspaceSettings(home=Path(sys.argv[1])), UUID(sys.argv[2]))
print("asking", flush=True)
while True:
    workspace.holder()
"""


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[None]:
    """A process that asks for the holder all the time, as workers do now and then."""
    command = [sys.executable, "-c", ASKER, str(tmp_path), str(JOB_ID)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asking\n"
        yield
        process.kill()


@pytest.mark.usefixtures("asker")
def test_asking_for_the_holder_does_not_keep_a_job_from_its_directory(
    workspace: Workspace, tmp_path: Path
) -> None:
    for _ in range(5):
        with another_holder(tmp_path) as pid:
            assert workspace.holder() == pid


def test_a_directory_that_nobody_has_held_has_no_holder(workspace: Workspace) -> None:
    assert workspace.holder() is None


def test_a_directory_that_another_process_holds_is_refused_until_that_is_gone_however_it_goes(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.workspace.lock.LOCK_TIMEOUT_SECONDS", 0.5)
    with another_holder(tmp_path) as pid:
        assert workspace.holder() == pid
        with pytest.raises(StageError, match="another process runs in"):
            workspace.lock()
        assert workspace.holder() == pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: workspace.holder() == 0, "the lock is free")
    workspace.lock()
    assert workspace.holder() == os.getpid()


def test_a_process_whose_job_has_ended_is_waited_for(workspace: Workspace, tmp_path: Path) -> None:
    with another_holder(tmp_path) as pid:
        threading.Timer(1, os.kill, (pid, signal.SIGTERM)).start()
        workspace.lock()
    assert workspace.holder() == os.getpid()


def test_asking_for_the_holder_leaves_the_directory_free(workspace: Workspace, tmp_path: Path) -> None:
    with another_holder(tmp_path):
        pass
    assert [workspace.holder(), workspace.holder()] == [0, 0]
    workspace.lock()
