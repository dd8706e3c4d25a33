"""`conda:` directives: real solves and links from a channel of the tests, and each way to fail."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.software import NotPrepared, prepare
from flows import diagnosis
from flows.contract.environments import SoftwareSettings
from flows.contract.spec import SoftwareMethod
from flows.engines.engine import Execution
from flows.engines.snakemake import SnakemakeEngine
from flows.engines.software import Software
from flows.environments.software_cache import remove_unused_software
from flows.snakemake_process.events import ErrorRaised, Message, PhaseChanged, WorkflowEvent
from flows.workspace.workspace import Workspace
from tests.conftest import ENVIRONMENTS
from tests.flows.conftest import NewWorkspace
from tests.flows.executions import HERE, Run, staged, write_workflow
from tests.flows.software import conda
from tests.flows.software.channel import write_channel

WORKFLOW = """
    rule greet:
        output: "hello.txt"
        conda: "envs/greeter.yaml"
        shell: "greeter hello > {output}; cat $GREETER_HOME/version >> {output}"
"""


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_channel(tmp_path_factory.mktemp("channel") / "channel")


@pytest.fixture
def software(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Software:
    """A conda, and an empty cache for a group."""
    monkeypatch.setenv("JOBS_VISIBLE_VARIABLES", conda.SLOW_VARIABLE)
    commands = conda.install(tmp_path / "conda")
    return Software(SoftwareSettings(conda_directory=commands), (SoftwareMethod.CONDA,), tmp_path / "group")


def workflow(directory: Path, channel: Path | str, *packages: str) -> Path:
    envs = write_workflow(directory, WORKFLOW) / "envs"
    envs.mkdir()
    lines = [f"channels: [{channel}]", "dependencies:", *(f"  - {package}" for package in packages)]
    (envs / "greeter.yaml").write_text("\n".join(lines))
    return directory


def run(workspace: Workspace, directory: Path, software: Software) -> Run:
    with SnakemakeEngine(HERE, software).start(staged(workspace, directory), workspace) as execution:
        return Run(workspace, list(execution.events()))


def resolution_of(told: Run) -> tuple[str, str]:
    error = diagnosis.of_workflow(told.of(ErrorRaised), told.exit_code, "")
    return error.message, error.resolution


def test_a_rule_runs_in_the_environment_that_it_declares(
    workspace: Workspace, tmp_path: Path, channel: Path, software: Software
) -> None:
    told = run(workspace, workflow(tmp_path / "workflow", channel.as_uri(), "greeter =1.0"), software)
    assert told.exit_code == 0, workspace.snakemake_log.read_text()
    assert (workspace.work / "hello.txt").read_text() == "Moin\n1.0\n"
    assert [event.phase for event in told.of(PhaseChanged)] == ["preparing software", ""]
    said = [message.text for message in told.of(Message)]
    assert any(text.startswith("Creating the conda environment") for text in said)


def test_the_next_job_of_the_group_finds_it_made(
    workspaces: NewWorkspace, tmp_path: Path, channel: Path, software: Software
) -> None:
    directory = workflow(tmp_path / "workflow", channel.as_uri(), "greeter =1.0")
    assert run(workspaces(), directory, software).exit_code == 0
    second = run(workspaces(), directory, software)
    assert second.exit_code == 0
    assert second.of(PhaseChanged) == []


def test_two_jobs_that_need_the_same_new_environment_make_it_once(
    workspaces: NewWorkspace,
    tmp_path: Path,
    channel: Path,
    software: Software,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(conda.SLOW_VARIABLE, "2")
    directory = workflow(tmp_path / "workflow", channel.as_uri(), "greeter =1.0")
    told: list[Run] = []

    def job(workspace: Workspace) -> None:
        told.append(run(workspace, directory, software))

    jobs = [threading.Thread(target=job, args=(workspaces(),)) for _ in range(2)]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join()
    assert [each.exit_code for each in told] == [0, 0]
    said = [message.text for each in told for message in each.of(Message)]
    assert sum(text.startswith("Waiting for another job that is creating software") for text in said) == 1
    assert len(list((software.directory / "conda").glob("*.env_setup_done"))) == 1
    made = [text for text in said if text.startswith("Creating conda environment")]
    assert len(made) == 1, made


def test_a_cancel_ends_the_making_within_ten_seconds(
    workspace: Workspace,
    tmp_path: Path,
    channel: Path,
    software: Software,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(conda.SLOW_VARIABLE, "60")
    directory = workflow(tmp_path / "workflow", channel.as_uri(), "greeter =1.0")
    asked: list[float] = []

    def stop(event: WorkflowEvent, execution: Execution) -> None:
        if isinstance(event, PhaseChanged) and event.phase:
            asked.append(time.monotonic())
            execution.terminate()

    with SnakemakeEngine(HERE, software).start(staged(workspace, directory), workspace) as execution:
        for event in execution.events():
            stop(event, execution)
    assert time.monotonic() - asked[0] < 10


@pytest.mark.parametrize(
    ("packages", "message"),
    [(("absent =1",), "absent"), (("impossible =1.0",), "nowhere-to-be-had")],
)
def test_packages_that_can_not_be_had_are_named(
    workspace: Workspace,
    tmp_path: Path,
    channel: Path,
    software: Software,
    packages: tuple[str, ...],
    message: str,
) -> None:
    told = run(workspace, workflow(tmp_path / "workflow", channel.as_uri(), *packages), software)
    assert told.exit_code == 1
    text, resolution = resolution_of(told)
    assert message in text
    assert "environment file" in resolution


def test_a_channel_that_can_not_be_reached_is_named(
    workspace: Workspace, tmp_path: Path, software: Software
) -> None:
    told = run(workspace, workflow(tmp_path / "workflow", "http://127.0.0.1:9/away", "greeter"), software)
    assert told.exit_code == 1
    text, resolution = resolution_of(told)
    assert "127.0.0.1:9/away" in text
    assert "its channels must be reachable from the service" in resolution


def test_a_worker_without_conda_is_the_operators_business(
    workspace: Workspace, tmp_path: Path, channel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    software = Software(SoftwareSettings(), (SoftwareMethod.CONDA,), tmp_path / "group")
    told = run(workspace, workflow(tmp_path / "workflow", channel.as_uri(), "greeter"), software)
    _, resolution = resolution_of(told)
    assert "this worker has no conda" in resolution


def test_without_the_method_the_error_says_what_the_rule_declares(
    workspace: Workspace, tmp_path: Path, channel: Path
) -> None:
    software = Software(SoftwareSettings(), (), tmp_path / "group")
    told = run(workspace, workflow(tmp_path / "workflow", channel.as_uri(), "greeter"), software)
    assert told.plan["greet"].undeployed == ("conda",)
    assert told.finished("greet")[0].exit_code == 127


def test_what_is_prepared_beforehand_is_there_for_the_first_job(
    workspace: Workspace, tmp_path: Path, channel: Path, software: Software, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = workflow(tmp_path / "workflow", channel.as_uri(), "greeter =1.0")
    monkeypatch.setenv("JOBS_CONDA_DIRECTORY", str(software.settings.conda_directory))
    monkeypatch.setenv("JOBS_ENVIRONMENTS_DIRECTORY", str(ENVIRONMENTS))
    said: list[str] = []
    prepare(directory, "genomics", [SoftwareMethod.CONDA], None, tmp_path / "home", said.append)
    assert any(line.startswith("Created the conda environment") for line in said)
    assert not (directory / ".snakemake").exists()
    group = replace(software, directory=tmp_path / "home" / "software" / "genomics")
    told = run(workspace, directory, group)
    assert told.exit_code == 0
    assert told.of(PhaseChanged) == []


def test_what_can_not_be_prepared_says_why(
    tmp_path: Path, channel: Path, software: Software, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = workflow(tmp_path / "workflow", channel.as_uri(), "absent")
    monkeypatch.setenv("JOBS_CONDA_DIRECTORY", str(software.settings.conda_directory))
    monkeypatch.setenv("JOBS_ENVIRONMENTS_DIRECTORY", str(ENVIRONMENTS))
    with pytest.raises(NotPrepared, match="absent"):
        prepare(directory, "default", [SoftwareMethod.CONDA], None, tmp_path / "home", lambda _: None)


def test_environments_that_no_job_has_used_for_long_are_removed(
    workspaces: NewWorkspace, tmp_path: Path, channel: Path, software: Software
) -> None:
    caches = tmp_path / "software"
    group = replace(software, directory=caches / "default")
    for number, version in enumerate(("1.0", "2.0")):
        directory = workflow(tmp_path / f"workflow{number}", channel.as_uri(), f"greeter ={version}")
        assert run(workspaces(), directory, group).exit_code == 0
    flags = sorted(
        (caches / "default" / "conda").glob("*.env_setup_done"), key=lambda flag: flag.stat().st_mtime
    )
    long_ago = time.time() - 100 * 86_400
    for flag in flags:
        os.utime(flag, (long_ago, long_ago))
    assert run(workspaces(), tmp_path / "workflow1", group).exit_code == 0, "uses the second once more"
    removed = remove_unused_software(caches, keep_days=90)
    assert removed == [f"default/{flags[0].name.removesuffix('.env_setup_done')}"]
    assert run(workspaces(), tmp_path / "workflow0", group).exit_code == 0, "makes it anew"
