"""Snakemake's report is made after the workflow, in a process of its own, and never fails the job."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.contract.spec import EngineName, ExecutionSpec
from flows.engines.engine import Execution
from flows.snakemake_process.events import AttemptFinished, EngineExited, Message, WorkflowEvent
from flows.workspace.workspace import Workspace
from tests.flows.executions import Run, execute, run, staged, write_workflow
from tests.support import processes_of

REPORT = {"report": True}

WITH_RESULT = """
rule all:
    input: "result.txt"

rule make:
    output: report("result.txt", caption="caption.rst", category="Results")
    shell: "echo 'a result' > {output}"
"""

ONE_FAILS = """
rule all:
    input: "kept.txt", "lost.txt"

rule keep:
    output: report("kept.txt")
    shell: "echo kept > {output}"

rule lose:
    output: "lost.txt"
    shell: "exit 3"
"""

SLOW_REPORT = """
import sys, time

if any(argument.startswith("--report") for argument in sys.argv):
    open("begun", "w").close()
    time.sleep(60)

rule all:
    output: "done.txt"
    shell: "touch {output}"
"""


def write(directory: Path, snakefile: str, caption: str = "What came of it.\n") -> Path:
    workflow = write_workflow(directory, snakefile)
    (workflow / "caption.rst").write_text(caption)
    return workflow


def messages(run: Run) -> str:
    return "\n".join(message.text for message in run.of(Message))


def manifest(workspace: Workspace) -> Any:
    return json.loads(workspace.manifest.read_text())["outputs"]


@pytest.fixture(autouse=True)
def without_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be fetched from there is not to be had."""
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")


def test_a_report_holds_the_results_and_needs_no_internet(tmp_path: Path, workspace: Workspace) -> None:
    run = execute(workspace, write(tmp_path / "workflow", WITH_RESULT), options=REPORT)

    assert run.exit_code == 0
    html = workspace.report.read_text()
    assert "result.txt" in html
    assert "What came of it." in html
    assert not (workspace.work / "report.html").exists()


def test_its_events_are_not_the_workflows(tmp_path: Path, workspace: Workspace) -> None:
    run = execute(workspace, write(tmp_path / "workflow", WITH_RESULT), options=REPORT)

    assert len(run.of(AttemptFinished)) == 2
    assert isinstance(run.events[-1], EngineExited)
    assert len(run.of(EngineExited)) == 1
    assert "report" not in messages(run).lower()


def test_a_job_that_does_not_ask_gets_none(tmp_path: Path, workspace: Workspace) -> None:
    execute(workspace, write(tmp_path / "workflow", WITH_RESULT))

    assert not workspace.report.exists()


def test_a_workflow_that_failed_has_a_report_of_what_it_made(tmp_path: Path, workspace: Workspace) -> None:
    workflow = write(tmp_path / "workflow", ONE_FAILS)

    run = execute(workspace, workflow, options={**REPORT, "keep_going": True})

    assert run.exit_code == 1
    assert "kept.txt" in workspace.report.read_text()


def test_a_report_that_can_not_be_made_is_told_and_changes_nothing(
    tmp_path: Path, workspace: Workspace
) -> None:
    workflow = write(tmp_path / "workflow", WITH_RESULT, caption="{{ this is no template")

    run = execute(workspace, workflow, options=REPORT)

    assert run.exit_code == 0
    assert not workspace.report.exists()
    assert "The report could not be created: see snakemake.log." in messages(run)


def test_the_report_of_an_earlier_execution_does_not_stay(tmp_path: Path, workspace: Workspace) -> None:
    spec = staged(workspace, write(tmp_path / "workflow", WITH_RESULT))
    workspace.report.write_text("old")

    run(spec, workspace)

    assert not workspace.report.exists()


def test_cancelling_ends_the_report_too(tmp_path: Path, workspace: Workspace) -> None:
    spec = staged(workspace, write(tmp_path / "workflow", SLOW_REPORT), options=REPORT)

    def cancel(event: WorkflowEvent, execution: Execution) -> None:
        if isinstance(event, AttemptFinished):
            execution.terminate()

    told = run(spec, workspace, cancel)

    assert isinstance(told.events[-1], EngineExited)
    assert not workspace.report.exists()
    assert processes_of(workspace.directory.name) == []


def test_a_report_that_takes_too_long_is_given_up(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engines.snakemake._REPORT_SECONDS", 4)

    run = execute(workspace, write(tmp_path / "workflow", SLOW_REPORT), options=REPORT)

    assert run.exit_code == 0
    assert (workspace.work / "begun").exists()
    assert "at the latest after 4 seconds" in messages(run)


@pytest.mark.parametrize(
    ("outputs", "path"),
    [
        ([], "report.html"),
        (["report.html"], "snakemake-report.html"),
        (["report.html", "snakemake-report.html"], "snakemake-2-report.html"),
    ],
)
def test_it_is_an_output_beside_those_of_the_workflow(
    workspace: Workspace, outputs: list[str], path: str
) -> None:
    workspace.stage(ExecutionSpec(engine=EngineName.MOCK))
    for output in outputs:
        (workspace.work / output).write_text("the workflow's own")
    workspace.report.write_text("Snakemake's")

    published = workspace.publish(outputs)

    listed = {item["path"]: item for item in manifest(workspace)}
    assert published == len(outputs) + 1
    assert set(listed) == {*outputs, path}
    assert listed[path]["file"] == "report.html"
    assert listed[path]["size"] == len("Snakemake's")
