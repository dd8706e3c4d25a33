"""Jobs share outputs of rules that allow it, and each keeps files of its own."""

from pathlib import Path

from flows.snakemake_process.events import AttemptFinished
from flows.workspace.workspace import Workspace
from tests.flows.conftest import NewWorkspace
from tests.flows.executions import Run, execute, write_workflow

SNAKEFILE = """
rule all:
    input: "used.txt"

rule expensive:
    output: "made.txt"
    cache: True
    shell: "date +%s.%N > {output}"

rule expensive_directory:
    output: directory("tree")
    cache: True
    shell: "mkdir -p {output}/deeper; echo leaf > {output}/deeper/leaf.txt; echo top > {output}/top.txt"

rule use:
    input: "made.txt", "tree"
    output: "used.txt"
    shell: "cat made.txt tree/top.txt tree/deeper/leaf.txt > {output}; echo more >> made.txt"
"""


def made(run: Run) -> str:
    return (run.workspace.work / "made.txt").read_text()


def links(workspace: Workspace) -> list[Path]:
    return [
        path for path in workspace.work.rglob("*") if path.is_symlink() and ".snakemake" not in path.parts
    ]


def test_the_second_job_takes_what_the_first_has_made(tmp_path: Path, workspaces: NewWorkspace) -> None:
    workflow = write_workflow(tmp_path / "workflow", SNAKEFILE)
    first, second = (execute(workspaces(), workflow, options={"cache": True}) for _ in range(2))

    assert first.exit_code == second.exit_code == 0, second.workspace.snakemake_log.read_text()
    assert made(second) == made(first)
    assert first.finished("expensive")[0].cpu_seconds is not None
    assert second.finished("expensive")[0].cpu_seconds is None  # no command ran


def test_outputs_are_the_jobs_own_files(tmp_path: Path, workspaces: NewWorkspace) -> None:
    """`use` appends to its input: nothing of that is in the cache, nor in the next job."""
    workflow = write_workflow(tmp_path / "workflow", SNAKEFILE)
    for run in [execute(workspaces(), workflow, options={"cache": True}) for _ in range(2)]:
        assert made(run).count("more") == 1
        assert links(run.workspace) == []
        outputs = [output for planned in run.plan.values() for output in planned.outputs]
        files = {"made.txt", "used.txt", "tree/top.txt", "tree/deeper/leaf.txt"}
        assert set(run.workspace.files_of(outputs)) == files
        assert run.workspace.publish(files) == 4


def test_nothing_is_shared_unless_the_job_asks(tmp_path: Path, workspaces: NewWorkspace) -> None:
    workflow = write_workflow(tmp_path / "workflow", SNAKEFILE)
    first, second = (execute(workspaces(), workflow) for _ in range(2))

    assert made(first) != made(second)
    assert not first.workspace.output_cache.exists()


def test_what_was_fetched_is_up_to_date_in_its_directory(tmp_path: Path, workspaces: NewWorkspace) -> None:
    workflow = write_workflow(tmp_path / "workflow", SNAKEFILE.replace("; echo more >> made.txt", ""))
    execute(workspaces(), workflow, options={"cache": True})
    workspace = workspaces()
    execute(workspace, workflow, options={"cache": True})

    again = execute(workspace, workflow, options={"cache": True})

    assert {event.job_id for event in again.of(AttemptFinished)} <= {again.plan["all"].job_id}
    assert all(planned.is_done for name, planned in again.plan.items() if name != "all")
