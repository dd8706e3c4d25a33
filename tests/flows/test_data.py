"""Data where it lies: inputs, small files, working directories, projects, and results brought along."""

import contextlib
import os
import shutil
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from flows.contract.manifest import Manifest
from flows.contract.spec import ExecutionSpec
from flows.snakemake_process.events import ErrorRaised
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.staging import StageError
from flows.workspace.workspace import Workspace
from tests.flows.executions import execute, run, staged, write_workflow

GIB = 1 << 30
COUNT = """
configfile: "config/config.yaml"

rule all:
    input: expand("counted/{sample}", sample=open("config/samples.tsv").read().split())

rule count:
    input: "resources/reads/{sample}"
    output: "counted/{sample}"
    shell: "wc -l < {input} > {output}"
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    for sample in "AB":
        (directory / sample).write_text(f"{sample}\n")
    return directory


@pytest.fixture
def settings(tmp_path: Path, data: Path) -> WorkspaceSettings:
    return WorkspaceSettings(
        home=tmp_path / "home",
        workflow_roots=(tmp_path / "workflows",),
        data_roots={"*": (data,)},
        project_roots={"lab": (tmp_path / "projects",)},
    )


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    directory = write_workflow(tmp_path / "workflows" / "count", COUNT)
    (directory / "config").mkdir()
    (directory / "config" / "config.yaml").write_text("depth: 1\n")
    (directory / "config" / "samples.tsv").write_text("X\n")
    (directory / "resources" / "reads").mkdir(parents=True)
    (directory / "resources" / "reads" / ".gitkeep").touch()
    return directory


def workspace_of(settings: WorkspaceSettings, resumes: UUID | None = None, group: str = "lab") -> Workspace:
    workspace = Workspace(settings, uuid4(), resumes, group)
    workspace.directory.mkdir(parents=True)
    return workspace


def test_a_published_workflow_runs_with_ones_own_samples_and_data(
    settings: WorkspaceSettings, workflow: Path, data: Path
) -> None:
    run = execute(
        workspace_of(settings),
        workflow,
        inputs={"resources/reads": {"path": str(data)}},
        files={"config/samples.tsv": "A\nB\n"},
    )
    assert run.exit_code == 0
    assert {name: run.outcomes()[name].value for name in ("count A", "count B")} == {
        "count A": "succeeded",
        "count B": "succeeded",
    }
    assert (workflow / "config" / "samples.tsv").read_text() == "X\n"


def test_twenty_gibibytes_of_input_cost_no_copy_and_no_second(
    settings: WorkspaceSettings, workflow: Path, data: Path
) -> None:
    with (data / "huge").open("wb") as huge:
        huge.truncate(20 * GIB)
    workspace = workspace_of(settings)
    begun = time.process_time()
    staged(workspace, workflow, inputs={"resources/reads": {"path": str(data)}})
    assert time.process_time() - begun < 1
    assert (workspace.work / "resources" / "reads").readlink() == data
    copied = sum(path.stat().st_size for path in workspace.work.rglob("*") if path.is_file())
    assert copied < 10_000


@pytest.mark.parametrize("path", ["/etc", "{data}/../workflows", "{data}/nothing"])
def test_data_outside_of_the_roots_or_missing_is_refused_by_name(
    settings: WorkspaceSettings, workflow: Path, data: Path, path: str
) -> None:
    named = path.format(data=data)
    with pytest.raises(StageError, match=f"an input '{named}'"):
        staged(workspace_of(settings), workflow, inputs={"resources/reads": {"path": named}})


@pytest.mark.parametrize("place", ["config", "Snakefile/reads", "away/reads"])
def test_inputs_replace_nothing_that_the_workflow_has(
    settings: WorkspaceSettings, workflow: Path, data: Path, place: str
) -> None:
    (workflow / "away").symlink_to("/tmp")
    with pytest.raises(StageError, match=r"the workflow has|behind a link of the workflow"):
        staged(workspace_of(settings), workflow, inputs={place: {"path": str(data)}})


def test_a_link_out_of_the_workflow_works_where_it_ends_below_a_root(
    settings: WorkspaceSettings, workflow: Path, data: Path
) -> None:
    shutil.rmtree(workflow / "resources" / "reads")
    (workflow / "resources" / "reads").symlink_to(Path("..", "..", "..", "data"))
    run = execute(workspace_of(settings), workflow, files={"config/samples.tsv": "A\n"})
    assert run.exit_code == 0


def test_a_link_out_of_all_roots_is_refused_by_name(
    settings: WorkspaceSettings, workflow: Path, tmp_path: Path
) -> None:
    (workflow / "away").symlink_to(Path("..", "..", "elsewhere"))
    with pytest.raises(StageError, match=f"the link 'away' leads to {tmp_path}/elsewhere"):
        staged(workspace_of(settings), workflow)


def test_the_working_directory_may_be_below_the_workflows(
    settings: WorkspaceSettings, workflow: Path, data: Path
) -> None:
    test = workflow / ".test"
    shutil.copytree(workflow / "config", test / "config")
    run = execute(
        workspace_of(settings),
        workflow,
        workdir=".test",
        inputs={".test/resources/reads": {"path": str(data)}},
        files={".test/config/samples.tsv": "A\n"},
        options={"configfiles": ["config/config.yaml"]},
        config={"depth": 2},
    )
    assert run.exit_code == 0, run.workspace.snakemake_log.read_text()
    assert run.plan["count A"].outputs == (".test/counted/A",)
    assert (run.workspace.work / ".test" / "counted" / "A").read_text() == "1\n"


HALF = """
rule all:
    output: "big.txt"
    shell: "seq 5 > {output}; [ -e whole ] || {{ kill -9 $PPID; exit; }}; seq 6 10 >> {output}"
"""


def test_results_that_a_killed_run_has_left_half_are_made_again(
    settings: WorkspaceSettings, tmp_path: Path
) -> None:
    workflow = write_workflow(tmp_path / "workflows" / "half", HALF)
    first = execute(workspace_of(settings), workflow)
    assert first.exit_code != 0
    assert (first.workspace.work / "big.txt").read_text().count("\n") == 5
    killed = tmp_path / "workflows" / "killed"
    shutil.copytree(first.workspace.work, killed)
    (killed / "whole").touch()

    second = execute(workspace_of(settings), killed)

    assert second.exit_code == 0
    assert (second.workspace.work / "big.txt").read_text().count("\n") == 10


def test_results_whose_rule_has_changed_since_are_made_again(
    settings: WorkspaceSettings, tmp_path: Path
) -> None:
    workflow = write_workflow(
        tmp_path / "workflows" / "old", 'rule all:\n    output: "x"\n    shell: "echo 1 > x"'
    )
    first = execute(workspace_of(settings), workflow)
    changed = tmp_path / "workflows" / "changed"
    shutil.copytree(first.workspace.work, changed)
    snakefile = changed / "Snakefile"
    times = snakefile.stat()
    snakefile.write_text(snakefile.read_text().replace("echo 1", "echo 2"))
    os.utime(snakefile, (times.st_atime, times.st_mtime))
    second = execute(workspace_of(settings), changed)
    assert (second.workspace.work / "x").read_text() == "2\n"


CHAIN = """
rule all:
    input: "c"

rule a:
    output: "a"
    shell: "echo a > {output}"

rule b:
    input: "a"
    output: "b"
    shell: "cat {input} > {output}"

rule c:
    input: "b"
    output: "c"
    shell: "cat {input} > {output}"
"""


def in_place(settings: WorkspaceSettings, project: Path, **fields: object) -> tuple[ExecutionSpec, Workspace]:
    workspace = workspace_of(settings)
    spec = ExecutionSpec.model_validate({"directory": {"path": str(project)}, "cores": 2} | fields)
    workspace.stage(spec)
    return spec, workspace


def end(workspace: Workspace) -> None:
    """As at the end of the job's process, which releases its locks."""
    workspace.leave()
    for descriptor in workspace.work_locks:
        os.close(descriptor)


def test_a_job_in_place_makes_only_what_has_become_necessary(
    settings: WorkspaceSettings, tmp_path: Path
) -> None:
    project = write_workflow(tmp_path / "projects" / "trio", CHAIN)
    spec, workspace = in_place(settings, project)
    first = run(spec, workspace)
    end(workspace)
    assert set(first.outcomes()) == {"all", "a", "b", "c"}
    assert (project / "c").read_text() == "a\n"
    time.sleep(0.01)
    (project / "b").write_text("changed by hand\n")

    spec, second = in_place(settings, project)
    again = run(spec, second)
    end(second)

    assert set(again.outcomes()) == {"all", "c"}
    assert {path.name for path in second.directory.iterdir()} >= {"work", "config.json"}
    assert second.publish(second.files_of(["c"])) == 1


def test_a_project_may_get_its_workflow_from_elsewhere(settings: WorkspaceSettings, tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path / "workflows" / "chain", CHAIN)
    project = tmp_path / "projects" / "empty"
    project.mkdir(parents=True)
    spec, workspace = in_place(settings, project, workflow={"path": str(workflow)})
    found = run(spec, workspace)
    workspace.leave()
    assert found.exit_code == 0
    assert found.plan["c"].outputs == ("c",)
    assert (project / "c").read_text() == "a\n"


def test_a_project_of_another_group_is_refused(settings: WorkspaceSettings, tmp_path: Path) -> None:
    project = write_workflow(tmp_path / "projects" / "trio", CHAIN)
    workspace = workspace_of(settings, group="default")
    spec = ExecutionSpec.model_validate({"directory": {"path": str(project)}})
    with pytest.raises(StageError, match="is not under a project root of this group"):
        workspace.stage(spec)


def test_a_second_job_waits_for_the_project_until_it_is_stopped(
    settings: WorkspaceSettings, tmp_path: Path
) -> None:
    project = write_workflow(tmp_path / "projects" / "trio", CHAIN)
    in_place(settings, project)
    reported: list[str] = []
    second = workspace_of(settings)
    spec = ExecutionSpec.model_validate({"directory": {"path": str(project)}})
    with pytest.raises(StageError, match="another process runs in"):
        second.stage(spec, reported.append, lambda: bool(reported))
    assert reported == [f"Waiting: another job works in {project}."]


def test_a_project_that_a_person_works_in_is_left_alone(settings: WorkspaceSettings, tmp_path: Path) -> None:
    project = write_workflow(tmp_path / "projects" / "trio", CHAIN)
    locks = project / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("c\n")
    spec, workspace = in_place(settings, project)
    found = run(spec, workspace)
    assert found.exit_code == 1
    assert [error.exception for error in found.of(ErrorRaised)] == ["LockException"]
    # This job was not killed: the mark of its end lets the locks of the person stand.
    end(workspace)
    in_place(settings, project)
    assert (locks / "0.output.lock").exists()


def test_locks_of_a_job_that_was_killed_in_a_project_are_removed(
    settings: WorkspaceSettings, tmp_path: Path
) -> None:
    project = write_workflow(tmp_path / "projects" / "trio", CHAIN)
    locks = project / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("c\n")
    _, killed = in_place(settings, project)
    for descriptor in killed.work_locks:
        os.close(descriptor)
    spec, workspace = in_place(settings, project)
    assert run(spec, workspace).exit_code == 0


def test_a_new_workflow_in_the_same_directory_makes_only_what_is_affected(
    settings: WorkspaceSettings, tmp_path: Path
) -> None:
    old = write_workflow(tmp_path / "workflows" / "old", CHAIN)
    (old / "gone.txt").write_text("of the old one")
    first = execute(workspace_of(settings), old)
    new = write_workflow(
        tmp_path / "workflows" / "new", CHAIN.replace("cat {input} > {output}", "tac {input} > {output}", 1)
    )
    workspace = workspace_of(settings, resumes=UUID(first.workspace.directory.name))
    spec = ExecutionSpec.model_validate({"workflow": {"path": str(new)}, "cores": 2})
    end(first.workspace)
    notes = workspace.stage(spec).notes
    assert notes == ("2 files of the workflow have changed.",)
    assert not (workspace.work / "gone.txt").exists()
    again = run(spec, workspace)
    assert set(again.outcomes()) == {"all", "b", "c"}


def test_a_large_output_is_listed_without_a_checksum(settings: WorkspaceSettings) -> None:
    workspace = workspace_of(settings.model_copy(update={"checksum_max_bytes": 10}))
    workspace.work.mkdir()
    for name, size in (("small", 10), ("large", 11)):
        (workspace.work / name).write_bytes(b"x" * size)
    workspace.publish(["small", "large"])
    manifest = Manifest.model_validate_json(workspace.manifest.read_bytes())
    assert {item.path: item.sha256 is None for item in manifest.outputs} == {"large": True, "small": False}


def test_a_copy_keeps_holes_times_and_permissions(settings: WorkspaceSettings, tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path / "workflows" / "sparse", "rule all:")
    with (workflow / "sparse").open("wb") as sparse:
        sparse.seek(GIB)
        sparse.write(b"end")
    (workflow / "script").write_text("#!/bin/sh\n")
    (workflow / "script").chmod(0o750)
    os.utime(workflow / "script", (1, 2))
    workspace = workspace_of(settings)
    staged(workspace, workflow)
    copy = (workspace.work / "sparse").stat()
    assert (copy.st_size, copy.st_blocks * 512 < 1 << 20) == (GIB + 3, True)
    assert (workspace.work / "sparse").open("rb").seek(GIB) == GIB
    script = (workspace.work / "script").stat()
    assert (script.st_mode & 0o777, script.st_mtime) == (0o750, 2)


def test_a_copy_that_finds_no_space_says_how_much_it_needs(
    settings: WorkspaceSettings, workflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The free space is made up: filling a disk would hinder others."""
    usage = shutil.disk_usage(workflow)
    monkeypatch.setattr("flows.workspace.copying._share_blocks", lambda *_: False)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(StageError, match=r"needs \d+ MiB, and \d+ MiB are free"):
        staged(workspace_of(settings), workflow)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file and a directory of the service, which a rule must not reach through it."""
    directory = tmp_path / "service"
    (directory / "locks").mkdir(parents=True)
    (directory / "tokens.json").write_text("tokens")
    return directory


@pytest.mark.parametrize("name", ["prefect-snakemake.lock", "prefect-snakemake.job", "source.json"])
def test_a_link_that_a_rule_leaves_in_a_project_leads_the_service_nowhere(
    settings: WorkspaceSettings, tmp_path: Path, secret: Path, name: str
) -> None:
    project = write_workflow(tmp_path / "projects" / "trio", CHAIN)
    (project / ".snakemake").mkdir()
    (project / ".snakemake" / name).symlink_to(secret / "tokens.json")
    _, workspace = in_place(settings, project)
    end(workspace)
    assert (secret / "tokens.json").read_text() == "tokens"


def test_locks_behind_a_link_that_a_rule_leaves_in_a_project_are_not_removed(
    settings: WorkspaceSettings, tmp_path: Path, secret: Path
) -> None:
    project = write_workflow(tmp_path / "projects" / "trio", CHAIN)
    _, killed = in_place(settings, project)
    for descriptor in killed.work_locks:
        os.close(descriptor)
    if (project / ".snakemake").exists():
        (project / ".snakemake").rename(project / "moved")
    (project / ".snakemake").symlink_to(secret)
    in_place(settings, project)
    assert (secret / "locks").is_dir()


def test_a_new_workflow_is_not_laid_through_a_link_that_a_rule_has_left(
    settings: WorkspaceSettings, tmp_path: Path, secret: Path
) -> None:
    old = write_workflow(tmp_path / "workflows" / "old", CHAIN)
    (old / "scripts").mkdir()
    (old / "scripts" / "tokens.json").write_text("of the workflow")
    first = execute(workspace_of(settings), old)
    shutil.rmtree(first.workspace.work / "scripts")
    (first.workspace.work / "scripts").symlink_to(secret)
    end(first.workspace)
    new = write_workflow(tmp_path / "workflows" / "new", CHAIN)
    for changed in (True, False):
        if changed:
            (new / "scripts").mkdir()
            (new / "scripts" / "tokens.json").write_text("changed")
        else:
            shutil.rmtree(new / "scripts")
        workspace = workspace_of(settings, resumes=UUID(first.workspace.directory.name))
        spec = ExecutionSpec.model_validate({"workflow": {"path": str(new)}})
        with contextlib.suppress(StageError):
            workspace.stage(spec)
        end(workspace)
        assert (secret / "tokens.json").read_text() == "tokens"


def test_the_record_of_a_workflow_is_not_written_through_a_link(
    settings: WorkspaceSettings, tmp_path: Path, secret: Path
) -> None:
    first = execute(workspace_of(settings), write_workflow(tmp_path / "workflows" / "old", CHAIN))
    record = first.workspace.work / ".snakemake" / "source.json"
    content = record.read_text()
    end(first.workspace)
    new = write_workflow(tmp_path / "workflows" / "new", f"{CHAIN}\n")
    (first.workspace.work / ".snakemake").rename(first.workspace.work / "moved")
    (secret / "source.json").write_text(content)
    (first.workspace.work / ".snakemake").symlink_to(secret)
    workspace = workspace_of(settings, resumes=UUID(first.workspace.directory.name))
    with contextlib.suppress(StageError):
        workspace.stage(ExecutionSpec.model_validate({"workflow": {"path": str(new)}}))
    assert (secret / "source.json").read_text() == content


def test_a_small_file_replaces_a_pipe_that_a_rule_has_left(
    settings: WorkspaceSettings, workflow: Path, data: Path
) -> None:
    workspace = workspace_of(settings)
    staged(workspace, workflow)
    end(workspace)
    (workspace.work / "config" / "samples.tsv").unlink()
    os.mkfifo(workspace.work / "config" / "samples.tsv")
    again = workspace_of(settings, resumes=UUID(workspace.directory.name))
    staged(again, workflow, files={"config/samples.tsv": "A\n"})
    assert (again.work / "config" / "samples.tsv").read_text() == "A\n"


def test_a_job_reads_the_outputs_of_another_job_of_its_group_only(
    workflow: Path, settings: WorkspaceSettings
) -> None:
    earlier = Workspace(settings, uuid4(), group="lab")
    earlier.lock()
    earlier.stage(ExecutionSpec.model_validate({"workflow": {"path": str(workflow)}}))
    (earlier.work / "made").mkdir()
    (earlier.work / "made" / "A").write_text("A\n")
    (earlier.work / "out").symlink_to("/etc")

    def reading(group: str, path: str) -> Workspace:
        workspace = Workspace(settings, uuid4(), group=group)
        workspace.lock()
        inputs = {"resources/reads": {"job": str(earlier.job_id), "path": path}}
        spec = {"workflow": {"path": str(workflow)}, "inputs": inputs}
        workspace.stage(ExecutionSpec.model_validate(spec))
        return workspace

    later = reading("lab", "made")
    assert (later.work / "resources" / "reads" / "A").read_text() == "A\n"
    with pytest.raises(StageError, match=r"no job .* of this group"):
        reading("other", "made")
    for path in ("out", "out/passwd", "missing"):
        with pytest.raises(StageError, match="has not made"):
            reading("lab", path)
