"""What a job can do to others on its machine: everything without a room, nothing in one."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.engines.engine import Execution
from flows.snakemake_process import control_groups
from flows.snakemake_process.events import AttemptStarted, WorkflowEvent
from flows.workspace.workspace import Workspace
from tests.flows.executions import run, staged, write_workflow
from tests.support import NOBODY, WORKFLOWS, become_nobody, needs_networks, wait_until

USERS = ["root", "an ordinary user"]


LIMITS = json.dumps({"*": {"memory_mb": 1024, "processes": 300, "file_mb": 1024}})


def attacks(user: str, **settings: str) -> dict[str, bool]:
    """Which attacks succeed, by name."""
    with tempfile.TemporaryDirectory() as directory:  # nobody can enter the directories of pytest
        is_ordinary = user != "root" and os.geteuid() == 0
        if is_ordinary:
            os.chown(directory, NOBODY, NOBODY)
        done = subprocess.run(
            [sys.executable, "-m", "tests.flows.intruding", directory],
            cwd=WORKFLOWS.parents[1],
            env={**os.environ, "HOME": directory, "HOME_OF_SECRETS": "here", **settings},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            preexec_fn=become_nobody if is_ordinary else None,
        )
    found: dict[str, bool] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module", params=USERS)
def user(request: pytest.FixtureRequest) -> str:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("needs root")
    return str(request.param)


@needs_networks
def test_a_job_in_its_room_reaches_nothing_of_others(user: str) -> None:
    found = attacks(user, JOBS_ISOLATION="required", JOBS_LIMITS=LIMITS)
    # The kernel counts processes of root in control groups only.
    is_counted = user != "root" or any(control_groups._bases())
    unlimited = [] if is_counted else ["start_many_processes"]
    allowed = ["reach_the_world", *unlimited]
    assert [name for name, has_succeeded in found.items() if has_succeeded] == allowed
    assert len(found) == 22


def test_each_of_these_attacks_succeeds_without_a_room() -> None:
    found = attacks("root", JOBS_ISOLATION="off")
    # An ordinary user does not own the installation.
    protected = [] if os.geteuid() == 0 else ["change_its_environment"]
    assert [name for name, has_succeeded in found.items() if not has_succeeded] == protected


@needs_networks
@pytest.mark.parametrize("isolation", ["preferred", "required"])
def test_where_the_kernel_makes_no_room_the_log_says_so_and_a_required_one_fails_the_job(
    isolation: str, tmp_path: Path
) -> None:
    told = refused("user", isolation, tmp_path)
    (said,) = told["said"]
    assert "can't make a room for the job (unshare: " in said
    assert ("which can read and change other jobs" in said) == (isolation == "preferred")
    assert told["has_vanished"] == (isolation == "required")


@needs_networks
def test_where_the_kernel_makes_no_network_the_job_runs_and_its_log_says_so(tmp_path: Path) -> None:
    told = refused("net", "preferred", tmp_path)
    (said,) = told["said"]
    assert "can't make a network for the job (unshare: " in said
    assert "which reaches what the machine reaches" in said
    assert not told["has_vanished"]


def refused(kind: str, isolation: str, tmp_path: Path) -> dict[str, Any]:
    """What a job says, and whether it vanishes, where the kernel makes no namespaces of a kind."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.flows.rooms_refused", str(tmp_path), kind],
        cwd=WORKFLOWS.parents[1],
        env={**os.environ, "JOBS_ISOLATION": isolation},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@needs_networks
def test_a_job_gets_its_network_back_when_the_program_that_connects_it_is_killed(
    workspace: Workspace, tmp_path: Path
) -> None:
    workflow = write_workflow(
        tmp_path / "workflow",
        """
        rule wait:
            output: "again"
            run:
                import socket, time
                first = socket.if_nametoindex("tap0")
                open("connected", "w").close()
                while [number for number, name in socket.if_nameindex() if name == "tap0"] in ([], [first]):
                    time.sleep(0.01)
                open("again", "w").close()
        """,
    )

    def kill_slirp(event: WorkflowEvent, _: Execution) -> None:
        if isinstance(event, AttemptStarted):
            wait_until((workspace.work / "connected").exists, "the rule knows its network", seconds=20)
            (slirp,) = (
                each for each in psutil.Process().children(recursive=True) if each.name() == "slirp4netns"
            )
            slirp.kill()

    told = run(staged(workspace, workflow, timeout_seconds=30), workspace, kill_slirp)

    assert told.exit_code == 0
