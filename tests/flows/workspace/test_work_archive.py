"""A job whose disk is gone is resumed all the same: what it has not published comes back as it was."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import pytest

from flows.contract.environments import EnvironmentRecord
from flows.contract.sources import WorkflowSource
from flows.contract.spec import ExecutionSpec
from flows.contract.storage import bundle_key
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace
from tests.flows.archives import workflow
from tests.flows.s3 import Bucket, s3_bucket

ARCHIVE = workflow({"Snakefile": "rule all:\n", "data/reads.txt": "ACGT\n"})
BUNDLE = f"sha256:{hashlib.sha256(ARCHIVE).hexdigest()}"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_bucket() as bucket:
        yield bucket


def settings_of(bucket: Bucket, disk: Path) -> WorkspaceSettings:
    return WorkspaceSettings(home=disk, storage_url=f"s3://{bucket.name}/service")


class Stopped(NamedTuple):
    """A job that was stopped half-way, its directory on a disk of its own, and checksums of what it left."""

    job_id: UUID
    work: Path
    left: str

    def successor(self, bucket: Bucket, disk: Path) -> Workspace:
        workspace = Workspace(settings_of(bucket, disk), uuid4(), self.job_id, left=self.left)
        workspace.storage.put(bundle_key(BUNDLE), io.BytesIO(ARCHIVE))
        workspace.lock()
        return workspace


@pytest.fixture
def stopped(bucket: Bucket, tmp_path: Path) -> Stopped:
    job_id = uuid4()
    workspace = Workspace(settings_of(bucket, tmp_path / "first"), job_id)
    metadata = workspace.work / ".snakemake" / "metadata"
    metadata.mkdir(parents=True)
    (metadata / "bWFw").write_text("{}")
    (workspace.work / ".snakemake" / "locks").mkdir()
    (workspace.work / "Snakefile").write_text("rule all:\n")
    (workspace.work / "latest").symlink_to("results")
    results = workspace.work / "results"
    results.mkdir()
    (results / "mapped.bam").write_text("mapped")
    os.utime(workspace.work / "Snakefile", (1_700_000_000, 1_700_000_000))
    os.utime(results / "mapped.bam", (1_700_000_100.25, 1_700_000_100.25))
    workspace.publish(["results/mapped.bam", "latest/mapped.bam"])
    workspace.keep()
    return Stopped(job_id, workspace.work, workspace.left() or "")


SPEC = ExecutionSpec(workflow=WorkflowSource(bundle=BUNDLE))


def test_the_successor_finds_everything_with_its_time(
    bucket: Bucket, stopped: Stopped, tmp_path: Path
) -> None:
    job_id, before, _ = stopped
    successor = stopped.successor(bucket, tmp_path / "second")

    staged = successor.stage(SPEC)

    assert staged.notes == ()
    assert successor.work == tmp_path / "second" / "jobs" / str(job_id) / "work"
    assert (successor.work / "results" / "mapped.bam").read_text() == "mapped"
    assert (successor.work / ".snakemake" / "metadata" / "bWFw").exists()
    assert not (successor.work / ".snakemake" / "locks").exists()
    assert (successor.work / "latest").readlink() == Path("results")
    for name in ("Snakefile", "results/mapped.bam"):
        assert (successor.work / name).stat().st_mtime == (before / name).stat().st_mtime


def test_outputs_are_kept_once(bucket: Bucket, stopped: Stopped) -> None:
    job_id = stopped.job_id
    storage = Workspace(settings_of(bucket, Path("/nowhere")), job_id).storage

    archive = b"".join(storage.read(f"jobs/{job_id}/work.tar"))

    assert b"rule all" in archive
    assert b"mapped.bam" not in archive


def test_where_nothing_was_kept_all_is_done_anew_and_said(bucket: Bucket, tmp_path: Path) -> None:
    gone = uuid4()
    workspace = Workspace(settings_of(bucket, tmp_path), uuid4(), resumes=gone)
    workspace.storage.put(bundle_key(BUNDLE), io.BytesIO(ARCHIVE))
    workspace.lock()

    staged = workspace.stage(SPEC)

    assert staged.notes == (f"Nothing was kept of job {gone}: this job starts from the beginning.",)
    assert (workspace.work / "data" / "reads.txt").read_text() == "ACGT\n"


def test_a_disk_that_stays_needs_no_copy(tmp_path: Path) -> None:
    workspace = Workspace(WorkspaceSettings(home=tmp_path), uuid4())
    workspace.work.mkdir(parents=True)
    workspace.publish([])

    workspace.keep()

    assert not (workspace.directory / "work.tar").exists()


@pytest.mark.parametrize("key", ["work.tar", "outputs.json", "work/results/mapped.bam"])
def test_what_was_changed_since_the_end_of_the_job_is_not_used(
    bucket: Bucket, stopped: Stopped, tmp_path: Path, key: str
) -> None:
    successor = stopped.successor(bucket, tmp_path / "second")
    place = f"jobs/{stopped.job_id}/{key}"
    changed = b"".join(successor.storage.read(place)).replace(b"rule all", b"rule own").replace(b"m", b"w")
    successor.storage.put(place, io.BytesIO(changed))

    staged = successor.stage(SPEC)

    assert staged.notes == (
        f"What job {stopped.job_id} has left was changed since it ended, and is not used: this job starts "
        "from the beginning.",
    )
    assert (successor.work / "Snakefile").read_text() == "rule all:\n"
    assert not (successor.work / "results").exists()


def test_the_environment_of_a_changed_manifest_is_not_used(
    bucket: Bucket, stopped: Stopped, tmp_path: Path
) -> None:
    job_id = uuid4()
    first = Workspace(settings_of(bucket, tmp_path / "with"), job_id)
    first.work.mkdir(parents=True)
    record = EnvironmentRecord(digest="0" * 12, python="3.12", packages=("snakemake==9.1",))
    first.record_environment(record)
    first.publish([])
    of_job = Stopped(job_id, first.work, first.left() or "")

    assert of_job.successor(bucket, tmp_path / "a").environment_before() == record
    first.storage.put(f"jobs/{job_id}/outputs.json", io.BytesIO(first.manifest.read_bytes() + b" "))
    assert of_job.successor(bucket, tmp_path / "b").environment_before() is None
