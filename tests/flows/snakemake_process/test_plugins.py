"""Our Snakemake plugins in other hands: installed from a wheel, under a plain `snakemake`.

`tests/contracts/test_snakemake.py` tests what the plugins are built on and no interface promises.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from flows.snakemake_process.events import (
    AttemptFinished,
    EngineExited,
    ErrorRaised,
    Message,
    PlanCompleted,
    decode,
    encode,
)
from tests.flows.executions import Run, new_workspace
from tests.flows.grammar import assert_well_told
from tests.support import WORKFLOWS

PROJECT = WORKFLOWS.parents[1]
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
"""The command that a user types."""

EVENTS_TO_A_FILE = (
    *("--executor", "prefect", "--logger", "prefect-events"),
    *("--logger-prefect-events-file", "events.jsonl"),
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the project's wheel is installed, away from the checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    not_shipped = shutil.ignore_patterns(".*", "tests", "build", "*.egg-info", "__pycache__", "node_modules")
    shutil.copytree(PROJECT, directory / "source", ignore=not_shipped)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", directory / "dist", directory / "source"], check=True)
    (wheel,) = (directory / "dist").glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", directory / "site", wheel], check=True)
    return directory / "site"


def run_installed(site: Path | None, directory: Path, *command: str | Path) -> CompletedProcess[str]:
    """A command in a directory, with the packages in `site`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def plain(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What a plain `snakemake` with our plugins writes of the workflow `failing`."""
    workspace = new_workspace(tmp_path_factory.mktemp("plain") / "home")
    shutil.copytree(WORKFLOWS / "failing", workspace.work)
    process = run_installed(
        installed,
        workspace.work,
        SNAKEMAKE,
        *EVENTS_TO_A_FILE,
        *("--cores", "2", "--keep-going"),
    )
    assert process.returncode == 1, process.stderr
    lines = (workspace.work / "events.jsonl").read_bytes().splitlines(keepends=True)
    events = [decode(line) for line in lines]
    assert [encode(event) for event in events] == lines
    return Run(workspace, events)


def test_the_plugins_come_from_the_wheel_and_not_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    program = "import flows, snakemake_executor_plugin_prefect as p; print(flows.__file__, p.__file__)"
    found = run_installed(installed, tmp_path, sys.executable, "-c", program).stdout.split()
    assert [Path(path).is_relative_to(installed) for path in found] == [True, True]


def test_the_environment_that_make_env_makes_has_the_plugins_too(tmp_path: Path) -> None:
    """An editable install, whose packages Snakemake does not find by itself."""
    shutil.copytree(WORKFLOWS / "bad_config", tmp_path / "workflow")
    process = run_installed(None, tmp_path / "workflow", SNAKEMAKE, *EVENTS_TO_A_FILE, "--cores", "1")
    assert process.returncode == 0, process.stderr
    lines = (tmp_path / "workflow" / "events.jsonl").read_bytes().splitlines()
    assert any(isinstance(decode(line), AttemptFinished) for line in lines)


def test_a_plain_snakemake_writes_the_plan_and_every_attempt(plain: Run) -> None:
    assert [event.total for event in plain.of(PlanCompleted)] == [13]
    assert set(plain.plan) - set(plain.outcomes()) == {"finish b", "join"}
    (broken,) = plain.finished("proceed b")
    assert broken.exit_code == 3
    assert len(plain.of(AttemptFinished)) == 11
    assert plain.output_of("proceed b") == "standard output of branch b\nstandard error of branch b\n"


def test_a_plain_snakemake_writes_what_it_says_and_why_it_fails(plain: Run) -> None:
    assert "Building DAG of jobs..." in [message.text for message in plain.of(Message)]
    assert [error.exception for error in plain.of(ErrorRaised)] == ["RuleException", "WorkflowError"]


def test_with_the_supervisors_last_word_it_is_the_story_that_the_flow_is_told(plain: Run) -> None:
    assert plain.of(EngineExited) == []
    assert_well_told([*plain.events, EngineExited(time=plain.events[-1].time, exit_code=1)])


def test_without_a_file_for_events_a_plain_snakemake_runs_as_with_its_own_executor(
    installed: Path, tmp_path: Path
) -> None:
    shutil.copytree(WORKFLOWS / "bad_config", tmp_path / "workflow")
    arguments = ("--executor", "prefect", "--logger", "prefect-events", "--cores", "1")
    process = run_installed(installed, tmp_path / "workflow", SNAKEMAKE, *arguments)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "workflow" / "threshold.txt").exists()
    assert not (tmp_path / "workflow" / ".snakemake" / "attempts").exists()


def test_the_plugins_pass_the_tests_that_snakemake_ships_for_plugins(installed: Path, tmp_path: Path) -> None:
    """In a process of their own, because they run Snakemake in theirs."""
    shutil.copy(Path(__file__).with_name("conformance.py"), tmp_path)
    # In a place of its own: pytest closes the place of all to others, PostgreSQL's user among them.
    place = f"--basetemp={tmp_path / 'place'}"
    arguments = ("--noconftest", "--rootdir", ".", "-p", "no:cacheprovider", place, "conformance.py")
    process = run_installed(installed, tmp_path, sys.executable, "-m", "pytest", *arguments)
    assert process.returncode == 0, process.stdout
    assert "passed" in process.stdout
