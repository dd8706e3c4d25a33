"""A job whose disk is gone is resumed all the same: what it has not published comes back as it was."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

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


@pytest.fixture
def stopped(bucket: Bucket, tmp_path: Path) -> tuple[UUID, Path]:
    """A job that was stopped half-way, and the directory that it worked in, on a disk of its own."""
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
    return job_id, workspace.work


SPEC = ExecutionSpec(workflow=WorkflowSource(bundle=BUNDLE))


def test_the_successor_finds_everything_with_its_time(
    bucket: Bucket, stopped: tuple[UUID, Path], tmp_path: Path
) -> None:
    job_id, before = stopped
    successor = Workspace(settings_of(bucket, tmp_path / "second"), uuid4(), resumes=job_id)
    successor.lock()

    staged = successor.stage(SPEC)

    assert staged.notes == ()
    assert successor.work == tmp_path / "second" / "jobs" / str(job_id) / "work"
    assert (successor.work / "results" / "mapped.bam").read_text() == "mapped"
    assert (successor.work / ".snakemake" / "metadata" / "bWFw").exists()
    assert not (successor.work / ".snakemake" / "locks").exists()
    assert (successor.work / "latest").readlink() == Path("results")
    for name in ("Snakefile", "results/mapped.bam"):
        assert (successor.work / name).stat().st_mtime == (before / name).stat().st_mtime


def test_outputs_are_kept_once(bucket: Bucket, stopped: tuple[UUID, Path]) -> None:
    job_id, _ = stopped
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
