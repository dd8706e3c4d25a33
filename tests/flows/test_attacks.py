"""What a job can do to others on its machine: everything without a room, nothing in one."""

import json
import os
import subprocess
import sys
import tempfile

import pytest

from tests.support import NOBODY, WORKFLOWS, become_nobody

USERS = ["root", "an ordinary user"]


def attacks(isolation: str, user: str) -> dict[str, bool]:
    """Which attacks succeed, by name."""
    with tempfile.TemporaryDirectory() as directory:  # nobody can enter the directories of pytest
        is_ordinary = user != "root" and os.geteuid() == 0
        if is_ordinary:
            os.chown(directory, NOBODY, NOBODY)
        done = subprocess.run(
            [sys.executable, "-m", "tests.flows.intruding", directory],
            cwd=WORKFLOWS.parents[1],
            env=os.environ | {"JOBS_ISOLATION": isolation, "HOME": directory, "HOME_OF_SECRETS": "here"},
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
    found = attacks("required", user)
    assert [name for name, has_succeeded in found.items() if has_succeeded] == []
    assert len(found) == 14


def test_each_of_these_attacks_succeeds_without_a_room() -> None:
    found = attacks("off", "root")
    # An ordinary user does not own the installation.
    protected = [] if os.geteuid() == 0 else ["change_its_environment"]
    assert [name for name, has_succeeded in found.items() if not has_succeeded] == protected
