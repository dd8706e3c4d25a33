"""A job's directory: what is brought in, what is written down, and who holds it."""

import hashlib
import io
import json
import os
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from flows.contract.spec import SNAKEFILE_NAMES, ExecutionSpec
from flows.contract.storage import StorageError, bundle_key, open_storage
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.staging import Staged, StageError
from flows.workspace.workspace import Workspace
from tests.flows import archives
from tests.flows.git_servers import Repository, serving
from tests.flows.s3 import Bucket

JOB_ID = uuid4()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The workflow root of the server."""
    path = tmp_path / "workflows"
    path.mkdir()
    return path


@pytest.fixture
def workflow(root: Path) -> Path:
    """A workflow of two files."""
    path = root / "variants"
    (path / "scripts").mkdir(parents=True)
    (path / "Snakefile").write_text("rule all:\n")
    (path / "scripts" / "map.py").write_text("print('map')\n")
    return path


@pytest.fixture
def settings(tmp_path: Path, root: Path) -> WorkspaceSettings:
    return WorkspaceSettings(home=tmp_path / "home", workflow_roots=(root,))


@pytest.fixture
def workspace(settings: WorkspaceSettings) -> Workspace:
    made = Workspace(settings, JOB_ID)
    made.directory.mkdir(parents=True)
    return made


def spec_of(path: Path | str, snakefile: str | None = None) -> ExecutionSpec:
    return ExecutionSpec.model_validate({"workflow": {"path": str(path)}, "snakefile": snakefile})


def files_below(directory: Path) -> set[str]:
    """All but the record of the workflow that was staged."""
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if not path.is_dir() and path.name != "source.json"
    }


def published(workspace: Workspace, *outputs: str) -> dict[str, dict[str, object]]:
    """The manifest's items by path, after these outputs were published."""
    number = workspace.publish(workspace.files_of(outputs))
    manifest = json.loads(workspace.manifest.read_text())
    assert manifest["version"] == 1
    assert sum(item["kind"] in ("output", "report") for item in manifest["outputs"]) == number
    return {item["path"]: item for item in manifest["outputs"]}


def test_staging_copies_the_workflow_and_leaves_what_git_and_snakemake_keep(
    workspace: Workspace, workflow: Path
) -> None:
    for kept in (".git/config", ".snakemake/locks/0.input.lock", "scripts/.snakemake/x"):
        (workflow / kept).parent.mkdir(parents=True)
        (workflow / kept).write_text("not for the job")
    workspace.stage(spec_of(workflow))
    assert files_below(workspace.work) == {"Snakefile", "scripts/map.py"}


def test_what_is_changed_after_staging_does_not_reach_the_job(workspace: Workspace, workflow: Path) -> None:
    workspace.stage(spec_of(workflow))
    (workflow / "Snakefile").write_text("changed")
    assert (workspace.work / "Snakefile").read_text() == "rule all:\n"


def test_the_config_of_the_job_is_written_beside_the_workflow(workspace: Workspace, workflow: Path) -> None:
    config = {"samples": ["a", "ü"], "depth": {"min": 1.5}}
    workspace.stage(spec_of(workflow).model_copy(update={"config": config}))
    assert json.loads(workspace.config_file.read_text()) == config


def test_links_within_the_workflow_stay_links(workspace: Workspace, workflow: Path) -> None:
    (workflow / "latest.py").symlink_to("scripts/map.py")
    workspace.stage(spec_of(workflow))
    assert (workspace.work / "latest.py").readlink() == Path("scripts/map.py")
    assert (workspace.work / "latest.py").read_text() == "print('map')\n"


def test_a_job_may_be_staged_again_after_a_crash(workspace: Workspace, workflow: Path) -> None:
    (workflow / "latest.py").symlink_to("scripts/map.py")
    workspace.stage(spec_of(workflow))
    workspace.stage(spec_of(workflow))
    assert files_below(workspace.work) == {"Snakefile", "scripts/map.py", "latest.py"}


def test_a_workflow_that_holds_the_home_of_the_jobs_is_not_copied_into_itself(workflow: Path) -> None:
    settings = WorkspaceSettings(home=workflow / ".jobs", workflow_roots=(workflow,))
    workspace = Workspace(settings, JOB_ID)
    workspace.directory.mkdir(parents=True)
    workspace.stage(spec_of(workflow))
    assert files_below(workspace.work) == {"Snakefile", "scripts/map.py"}


@pytest.mark.parametrize("place", ["jobs", "jobs/{other}/work", "link", "."])
def test_a_workflow_at_or_below_the_home_of_the_jobs_is_refused(workflow: Path, place: str) -> None:
    """As where the home lies below a root, which is how the local stack starts."""
    home = workflow / ".jobs"
    other = home / "jobs" / str(uuid4()) / "work"
    other.mkdir(parents=True)
    (other / "Snakefile").touch()
    (home / "link").symlink_to(other)
    workspace = Workspace(WorkspaceSettings(home=home, workflow_roots=(workflow,)), JOB_ID)
    workspace.directory.mkdir(parents=True)

    with pytest.raises(StageError, match="inside the directory where the service keeps its jobs") as refused:
        workspace.stage(spec_of(home / place.format(other=other.parent.name)))

    assert "JOBS_HOME" in refused.value.resolution
    assert not workspace.work.exists()


class TestASuccessor:
    """goes on in the directory of the job that it resumes, if that is still there."""

    @pytest.fixture
    def predecessor(self, workspace: Workspace) -> Workspace:
        """Whose process is gone: it holds nothing."""
        workspace.work.mkdir()
        (workspace.work / "Snakefile").write_text("rule all:\n")
        (workspace.work / "made").write_text("made")
        return workspace

    @pytest.fixture
    def successor(self, settings: WorkspaceSettings, predecessor: Workspace) -> Workspace:
        made = Workspace(settings, uuid4(), resumes=JOB_ID)
        made.directory.mkdir(parents=True)
        return made

    def test_finds_what_was_made(self, predecessor: Workspace, successor: Workspace, workflow: Path) -> None:
        assert successor.stage(spec_of(workflow)) == Staged()
        assert successor.work == predecessor.work
        assert set(published(successor, "made")) == {"made"}

    def test_finds_it_through_the_job_between(
        self, settings: WorkspaceSettings, predecessor: Workspace, successor: Workspace, workflow: Path
    ) -> None:
        successor.work.symlink_to(Path("..", predecessor.directory.name, "work"))
        third = Workspace(settings, uuid4(), resumes=UUID(successor.directory.name))
        third.directory.mkdir(parents=True)

        assert third.stage(spec_of(workflow)) == Staged()

        assert third.work == predecessor.work
        assert (third.directory / "work").readlink() == Path("..", str(JOB_ID), "work")
        assert set(published(third, "made")) == {"made"}

    @pytest.mark.parametrize("what", ["gone", "a link to elsewhere"])
    def test_says_that_it_begins_anew(
        self, predecessor: Workspace, successor: Workspace, workflow: Path, what: str
    ) -> None:
        predecessor.work.rename(predecessor.directory / "moved")
        if what != "gone":
            predecessor.work.symlink_to("/")

        staged = successor.stage(spec_of(workflow))

        assert staged.notes == (f"Nothing was kept of job {JOB_ID}: this job starts from the beginning.",)
        assert successor.work == successor.directory / "work"
        assert files_below(successor.work) == {"Snakefile", "scripts/map.py"}
        # As after a crash: what it has begun is its own.
        assert successor.stage(spec_of(workflow)).notes == ()

    def test_tells_no_snakefile_that_a_rule_has_made_a_link_to_elsewhere(
        self, predecessor: Workspace, successor: Workspace, workflow: Path
    ) -> None:
        (predecessor.work / "Snakefile").unlink()
        (predecessor.work / "Snakefile").symlink_to("/etc/hostname")
        successor.stage(spec_of(workflow))
        successor.publish([])
        assert json.loads(successor.manifest.read_text()).get("snakefile") is None


def test_a_job_of_the_mock_engine_needs_no_workflow(workspace: Workspace) -> None:
    workspace.stage(ExecutionSpec.model_validate({"engine": "mock"}))
    assert files_below(workspace.work) == set()


@pytest.mark.parametrize("place", ["outside", "beside", "through a link", "by dots"])
def test_a_workflow_outside_of_the_roots_is_refused(workspace: Workspace, root: Path, place: str) -> None:
    outside = root.parent / ("workflows-of-others" if place == "beside" else "outside")
    outside.mkdir()
    (outside / "Snakefile").touch()
    (root / "link").symlink_to(outside)
    path = {"through a link": root / "link", "by dots": root / ".." / "outside"}.get(place, outside)
    with pytest.raises(StageError, match="is not under a workflow root") as refused:
        workspace.stage(spec_of(path))
    assert str(root) in refused.value.resolution
    assert not workspace.work.exists()


def test_without_any_root_no_workflow_is_taken(tmp_path: Path, workflow: Path) -> None:
    workspace = Workspace(WorkspaceSettings(home=tmp_path / "home", workflow_roots=()), JOB_ID)
    with pytest.raises(StageError) as refused:
        workspace.stage(spec_of(workflow))
    assert "JOBS_WORKFLOW_ROOTS" in refused.value.resolution


@pytest.mark.parametrize("name", ["missing", "a_file", "loop"])
def test_a_path_that_is_no_directory_is_refused(workspace: Workspace, root: Path, name: str) -> None:
    (root / "a_file").touch()
    (root / "loop").symlink_to("loop")
    with pytest.raises(StageError):
        workspace.stage(spec_of(f"{root}/{name}"))


def test_what_cannot_be_copied_is_the_workflows_fault_and_named(workspace: Workspace, workflow: Path) -> None:
    os.mkfifo(workflow / "a_pipe")
    with pytest.raises(StageError, match="a_pipe"):
        workspace.stage(spec_of(workflow))


@pytest.mark.parametrize("name", SNAKEFILE_NAMES)
def test_the_snakefile_is_found_where_snakemake_looks_for_it(
    workspace: Workspace, root: Path, name: str
) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).touch()
    workspace.stage(spec_of(root))
    assert workspace.snakefile(spec_of(root)) == Path(name)


@pytest.mark.parametrize("snakefile", [None, "other/Snakefile", "scripts"])
def test_a_workflow_without_its_snakefile_is_refused(
    workspace: Workspace, workflow: Path, snakefile: str | None
) -> None:
    (workflow / "Snakefile").rename(workflow / "not_a_snakefile")
    with pytest.raises(StageError, match="no Snakefile") as refused:
        workspace.stage(spec_of(workflow, snakefile))
    assert "`snakefile`" in refused.value.resolution


def test_a_snakefile_that_is_a_pointer_of_git_lfs_is_named(workspace: Workspace, workflow: Path) -> None:
    (workflow / "Snakefile").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")

    with pytest.raises(StageError, match="Snakefile is a pointer of Git LFS"):
        workspace.stage(spec_of(workflow))


def test_roots_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_WORKFLOW_ROOTS", "/srv/a:/srv/b:")
    monkeypatch.setenv("JOBS_HOME", "/var/jobs")
    settings = WorkspaceSettings()
    assert settings.workflow_roots == (Path("/srv/a"), Path("/srv/b"))
    assert Workspace(settings, JOB_ID).directory == Path(f"/var/jobs/jobs/{JOB_ID}")


def test_an_output_whose_name_json_cannot_hold_is_listed_percent_encoded(workspace: Workspace) -> None:
    workspace.work.mkdir(parents=True)
    for name in (b"good.txt", b"b\xffd.txt", b"100%.txt"):
        Path(os.fsdecode(os.fsencode(workspace.work) + b"/" + name)).write_text("x")
    listed = published(workspace, "good.txt", "b\udcffd.txt", "100%.txt")
    assert list(listed) == ["100%.txt", "b%FFd.txt", "good.txt"]
    assert listed["b%FFd.txt"]["is_encoded"]


def test_the_manifest_tells_size_checksum_and_time_of_every_output(workspace: Workspace) -> None:
    content = os.urandom(3_000_000)
    output = workspace.work / "results" / "a.bam"
    output.parent.mkdir(parents=True)
    output.write_bytes(content)
    os.utime(output, (1_760_000_000, 1_760_000_000))
    assert published(workspace, "results/a.bam") == {
        "results/a.bam": {
            "path": "results/a.bam",
            "kind": "output",
            "size": 3_000_000,
            "sha256": hashlib.sha256(content).hexdigest(),
            "modified_at": "2025-10-09T08:53:20Z",
        }
    }


def test_only_outputs_that_are_there_are_published_each_once_in_order(workspace: Workspace) -> None:
    workspace.work.mkdir()
    for name in ("b", "a"):
        (workspace.work / name).write_text(name)
    assert list(published(workspace, "b", "a", "temporary", "b")) == ["a", "b"]


def test_of_an_output_directory_every_file_is_published(workspace: Workspace) -> None:
    chunks = workspace.work / "chunks"
    (chunks / "deep").mkdir(parents=True)
    for name in ("1.txt", "deep/2.txt", ".hidden"):
        (chunks / name).write_text(name)
    assert set(published(workspace, "chunks")) == {"chunks/1.txt", "chunks/deep/2.txt", "chunks/.hidden"}


def test_the_mark_that_snakemake_leaves_in_an_output_directory_is_no_output(workspace: Workspace) -> None:
    (workspace.work / "chunks").mkdir(parents=True)
    (workspace.work / "chunks" / "1.txt").touch()
    (workspace.work / "chunks" / ".snakemake_timestamp").touch()
    assert set(published(workspace, "chunks")) == {"chunks/1.txt"}


def test_nothing_outside_of_the_jobs_directory_is_published(workspace: Workspace, tmp_path: Path) -> None:
    workspace.work.mkdir()
    (tmp_path / "elsewhere").mkdir()
    for outside in (tmp_path / "secret", tmp_path / "elsewhere" / "secret", workspace.config_file):
        outside.write_text("not an output")
    outputs = (str(tmp_path / "secret"), str(tmp_path / "elsewhere"), "../config.json")
    assert published(workspace, *outputs) == {}


def test_nothing_is_published_through_a_link_that_a_rule_has_put_there(
    settings: WorkspaceSettings, bucket: Bucket
) -> None:
    settings.storage_url = f"s3://{bucket.name}/of-a-rule"
    workspace = Workspace(settings, JOB_ID)
    workspace.work.mkdir(parents=True)
    (workspace.work / "own").write_text("own")
    (workspace.work / "link").symlink_to("own")
    (workspace.work / "loop").symlink_to("loop")
    os.mkfifo(workspace.work / "pipe")
    for place in ("work/environ", "snakemake.log", "events.jsonl", "report.html", "outputs.json"):
        (workspace.directory / place).symlink_to("/proc/self/environ")

    assert set(published(workspace, "own", "link", "loop", "pipe", "environ")) == {"own", "link"}

    at = f"of-a-rule/jobs/{JOB_ID}"
    assert bucket.object_keys(at) == {f"{at}/outputs.json", f"{at}/work/own", f"{at}/work/link"}


def test_of_a_directory_that_was_put_elsewhere_nothing_is_published(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text("a token")
    workspace.work.mkdir()
    workspace.work.rename(workspace.directory / "moved")
    workspace.work.symlink_to("/")
    secrets = str(tmp_path / "secrets").lstrip("/")

    assert published(workspace, secrets, f"{secrets}/token") == {}
    assert workspace.publish([f"{secrets}/token"]) == 0


def test_an_output_that_is_named_by_its_whole_path_is_published_under_its_relative_one(
    workspace: Workspace,
) -> None:
    (workspace.work / "chunks").mkdir(parents=True)
    for name in ("a.txt", "chunks/1.txt"):
        (workspace.work / name).touch()
    outputs = (str(workspace.work / "a.txt"), str(workspace.work / "chunks"))
    assert set(published(workspace, *outputs)) == {"a.txt", "chunks/1.txt"}


def test_a_bundle_is_unpacked_and_its_subdirectory_is_the_workflow(
    workspace: Workspace, settings: WorkspaceSettings
) -> None:
    bundle = keep(
        settings, {"repo/workflow/Snakefile": "rule all:\n", "repo/.git/config": "x", "README": "x"}
    )
    spec = spec_from(bundle=bundle, subdir="repo")
    assert workspace.stage(spec) == Staged()
    assert files_below(workspace.work) == {"workflow/Snakefile"}
    assert workspace.snakefile(spec) == Path("workflow/Snakefile")


def test_a_bundle_that_is_gone_is_refused(workspace: Workspace) -> None:
    with pytest.raises(StageError, match="there is no bundle") as refused:
        workspace.stage(spec_from(bundle=f"sha256:{'0' * 64}"))
    assert "PUT /bundles" in refused.value.resolution


def test_a_bundle_that_was_changed_where_it_is_kept_is_not_unpacked(
    workspace: Workspace, settings: WorkspaceSettings
) -> None:
    bundle = keep(settings, {"Snakefile": "rule all:\n"})
    open_storage(settings).put(bundle_key(bundle), io.BytesIO(archives.workflow({"Snakefile": "evil"})))
    with pytest.raises(StorageError, match="damaged"):
        workspace.stage(spec_from(bundle=bundle))
    assert not workspace.work.exists()


def test_a_bundle_that_is_refused_leaves_no_workflow(
    workspace: Workspace, settings: WorkspaceSettings
) -> None:
    """As one that was accepted under other limits."""
    bundle = keep(settings, {f"f{number}": "" for number in range(20)})
    settings.workflow_max_entries = 10
    with pytest.raises(StageError, match="more than 10 files"):
        workspace.stage(spec_from(bundle=bundle))
    assert not workspace.work.exists()


def test_a_git_repository_is_checked_out_and_its_commit_told(
    workspace: Workspace, settings: WorkspaceSettings, tmp_path: Path
) -> None:
    repository = Repository(tmp_path / "repository.git")
    commit = repository.commit({"Snakefile": b"rule all:\n"})
    settings.git_allow_schemes, settings.git_allow_private_hosts = ("http",), ("127.0.0.1",)
    with serving(repository) as address:
        assert workspace.stage(spec_from(git=address)) == Staged(commit)
    assert files_below(workspace.directory) == {"work/Snakefile", "work.lock", "config.json", "group"}
    # As after a crash: the server is gone, and need not be asked again.
    workspace.stage(spec_from(git=address))


def test_a_git_address_that_may_not_be_used_is_refused(workspace: Workspace) -> None:
    with pytest.raises(StageError, match="not public") as refused:
        workspace.stage(spec_from(git="https://127.0.0.1/x"))
    assert "JOBS_GIT_ALLOW_PRIVATE_HOSTS" in refused.value.resolution
    assert not workspace.work.exists()


def test_what_a_job_has_made_goes_to_s3_as_it_lies_in_its_directory(
    settings: WorkspaceSettings, bucket: Bucket
) -> None:
    settings.storage_url = f"s3://{bucket.name}/of-a-job"
    workspace = Workspace(settings, JOB_ID)
    (workspace.work / "results").mkdir(parents=True)
    (workspace.work / "results" / "a.bam").write_text("reads")
    workspace.event_log.write_text("{}\n")

    published(workspace, "results/a.bam")

    at = f"of-a-job/jobs/{JOB_ID}"
    assert bucket.object_keys(at) == {f"{at}/outputs.json", f"{at}/events.jsonl", f"{at}/work/results/a.bam"}


def spec_from(**workflow: str) -> ExecutionSpec:
    return ExecutionSpec.model_validate({"workflow": workflow})


def keep(settings: WorkspaceSettings, files: dict[str, str]) -> str:
    """The name of a bundle of these files, as the facade keeps it."""
    archive = archives.workflow(files)
    bundle = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    open_storage(settings).put(bundle_key(bundle), io.BytesIO(archive))
    return bundle


def test_publishing_ends_soon_when_it_is_stopped(settings: WorkspaceSettings, workflow: Path) -> None:
    """Reading the first output would take hours: it is larger than most disks, and a hole."""
    workspace = Workspace(settings.model_copy(update={"checksum_max_bytes": 1 << 50}), uuid4())
    workspace.stage(spec_of(workflow))
    with (workspace.work / "huge.bin").open("wb") as huge:
        huge.truncate(1 << 42)
    (workspace.work / "small.txt").write_text("small")
    stops = time.monotonic() + 1

    number = workspace.publish(["huge.bin", "small.txt"], is_stopped=lambda: time.monotonic() > stops)

    assert time.monotonic() < stops + 5
    assert number == 2
    items = {item["path"]: item for item in json.loads(workspace.manifest.read_text())["outputs"]}
    assert items["huge.bin"]["size"] == 1 << 42
    assert "sha256" not in items["huge.bin"]
