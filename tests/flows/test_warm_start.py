"""A flow process gets a supervisor, also where the worker that it asks is killed at that moment."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows.environments.warm import LARGEST_MESSAGE, WARM_START_VARIABLE
from flows.workspace.workspace import Workspace
from tests.flows.executions import execute, write_workflow

SNAKEFILE = """
rule all:
    output: "done.txt"
    shell: "echo done > {output}"
"""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The end of the socket at which a worker would read requests."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ours:
        monkeypatch.setenv(WARM_START_VARIABLE, str(ours.fileno()))
        yield theirs


def test_a_worker_that_is_gone_costs_no_job(worker: socket.socket, workspace: Workspace) -> None:
    worker.close()

    run = execute(workspace, write_workflow(workspace.home.parent / "workflow", SNAKEFILE))

    assert run.exit_code == 0


def test_a_request_that_is_lost_with_its_worker_costs_no_job(
    worker: socket.socket, workspace: Workspace
) -> None:
    """The worker has received the job's socket, and is killed before its zygote has forked."""
    with ThreadPoolExecutor(1) as others:
        others.submit(_receive_and_drop, worker)

        run = execute(workspace, write_workflow(workspace.home.parent / "workflow", SNAKEFILE))

    assert run.exit_code == 0


def _receive_and_drop(worker: socket.socket) -> None:
    _, descriptors, _, _ = socket.recv_fds(worker, LARGEST_MESSAGE, 1)
    for descriptor in descriptors:
        os.close(descriptor)
