"""`container:` directives, with the real apptainer and an image of two static programs."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from flows import diagnosis
from flows.contract.environments import SoftwareSettings
from flows.contract.spec import SoftwareMethod
from flows.engines.snakemake import SnakemakeEngine
from flows.engines.software import Software
from flows.snakemake_process.events import AttemptStarted, ErrorRaised, PhaseChanged
from flows.workspace.workspace import Workspace
from tests.flows.executions import HERE, Run, staged, write_workflow
from tests.support import NOBODY, WORKFLOWS, become_nobody

BUSYBOX, BASH = Path("/bin/busybox"), Path("/bin/bash-static")
DIRECTORIES = ("bin", "tmp", "proc", "sys", "dev", "etc", "usr/bin", "root", "home", "var/tmp", "opt", "mnt")
TOOLS = ("sh", "ls", "cat", "echo", "env", "grep", "sleep", "tr", "id", "mkdir", "touch", "which")
GREETER = '#!/bin/sh\necho Moin from the image > "$1"\n'


def _why_not() -> str | None:
    """Why these tests can't run here."""
    if os.geteuid() != 0:
        return "building an image needs root here"
    if shutil.which("apptainer") is None:
        return "apptainer is not installed: make software, as root"
    if subprocess.run(["apptainer", "--version"], capture_output=True, check=False).returncode:
        return "apptainer does not start here"
    return None if BUSYBOX.exists() and BASH.exists() else "busybox-static or bash-static is missing"


pytestmark = pytest.mark.skipif(_why_not() is not None, reason=_why_not() or "")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("image")
    root = directory / "root"
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    shutil.copy(BASH, root / "bin" / "bash")
    for tool in TOOLS:
        (root / "bin" / tool).symlink_to("busybox")
    for name in ("passwd", "group", "resolv.conf", "hosts", "localtime"):
        (root / "etc" / name).touch()
    greeter = root / "bin" / "greeter"
    greeter.write_text(GREETER)
    greeter.chmod(0o755)
    build = ["apptainer", "build", str(directory / "tiny.sif"), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    return directory / "tiny.sif"


@pytest.fixture(autouse=True)
def without_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root can't run containers in a room; `test_an_ordinary_user_runs_a_container_in_its_room` does."""
    monkeypatch.setenv("JOBS_ISOLATION", "off")


@pytest.fixture
def software(tmp_path: Path) -> Software:
    return Software(SoftwareSettings(), (SoftwareMethod.APPTAINER,), tmp_path / "group")


def workflow(directory: Path, image: Path | str, shell: str) -> Path:
    return write_workflow(
        directory,
        f"""
        rule greet:
            output: "hello.txt"
            container: "{image}"
            shell: "{shell}"
        """,
    )


def run(workspace: Workspace, directory: Path, software: Software) -> Run:
    with SnakemakeEngine(HERE, software).start(staged(workspace, directory), workspace) as execution:
        return Run(workspace, list(execution.events()))


def test_a_rule_runs_in_the_container_that_it_declares(
    workspace: Workspace, tmp_path: Path, image: Path, software: Software
) -> None:
    told = run(workspace, workflow(tmp_path / "workflow", image, "greeter {output}"), software)
    assert told.exit_code == 0, workspace.snakemake_log.read_text()
    assert (workspace.work / "hello.txt").read_text() == "Moin from the image\n"


def test_an_ordinary_user_runs_a_container_in_its_room(image: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:  # nobody can enter the directories of pytest
        place = Path(directory)
        shutil.copy(image, place)
        workflow(place / "workflow", place / image.name, "greeter {output}")
        for path in (place, *place.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        subprocess.run(
            [sys.executable, "-m", "tests.flows.software.container_in_room", directory],
            cwd=WORKFLOWS.parents[1],
            env=os.environ | {"JOBS_ISOLATION": "required", "HOME": directory},
            check=True,
            preexec_fn=become_nobody,
        )


def test_a_cancel_ends_a_container(
    workspace: Workspace, tmp_path: Path, image: Path, software: Software
) -> None:
    directory = workflow(tmp_path / "workflow", image, "sleep 300; greeter {output}")
    asked = 0.0
    with SnakemakeEngine(HERE, software).start(staged(workspace, directory), workspace) as execution:
        for event in execution.events():
            if isinstance(event, AttemptStarted):
                time.sleep(1)
                asked = time.monotonic()
                execution.terminate()
    assert asked, "it never started"
    assert time.monotonic() - asked < 10


def test_an_image_that_can_not_be_pulled_shows_apptainers_words(
    workspace: Workspace, tmp_path: Path, software: Software
) -> None:
    address = "docker://127.0.0.1:9/absent:1"
    told = run(workspace, workflow(tmp_path / "workflow", address, "greeter {output}"), software)
    assert told.exit_code == 1
    error = diagnosis.of_workflow(told.of(ErrorRaised), 1, "")
    assert f"Failed to pull singularity image from {address}" in error.message
    assert "FATAL" in error.message
    assert "can reach its registry" in error.resolution
    assert [event.phase for event in told.of(PhaseChanged)] == ["preparing software", ""]


def test_a_machine_without_apptainer_is_the_operators_business(
    workspace: Workspace, tmp_path: Path, image: Path, software: Software, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "env"):
        (programs / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(programs))
    told = run(workspace, workflow(tmp_path / "workflow", image, "greeter {output}"), software)
    error = diagnosis.of_workflow(told.of(ErrorRaised), 1, "")
    assert "apptainer is not installed where the job runs" in error.resolution
