"""What a job can do to others on its machine: everything without a room, nothing in one."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import NOBODY, WORKFLOWS, become_nobody

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


def test_a_job_in_its_room_reaches_nothing_of_others(user: str) -> None:
    found = attacks(user, JOBS_ISOLATION="required", JOBS_LIMITS=LIMITS)
    # The kernel counts no processes of root.
    unlimited = ["start_many_processes"] if user == "root" else []
    assert [name for name, has_succeeded in found.items() if has_succeeded] == unlimited
    assert len(found) == 18


def test_each_of_these_attacks_succeeds_without_a_room() -> None:
    found = attacks("root", JOBS_ISOLATION="off")
    # An ordinary user does not own the installation.
    protected = [] if os.geteuid() == 0 else ["change_its_environment"]
    assert [name for name, has_succeeded in found.items() if not has_succeeded] == protected


@pytest.mark.parametrize("isolation", ["preferred", "required"])
def test_where_the_kernel_makes_no_room_the_log_says_so_and_a_required_one_fails_the_job(
    isolation: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.flows.rooms_refused", str(tmp_path)],
        cwd=WORKFLOWS.parents[1],
        env={**os.environ, "JOBS_ISOLATION": isolation},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    told = json.loads(done.stdout)
    (said,) = told["said"]
    assert "can't make a room for the job (unshare: " in said
    assert ("which can read and change other jobs" in said) == (isolation == "preferred")
    assert told["has_vanished"] == (isolation == "required")
