"""Saves the working directory of an incomplete job, where disks do not outlive their machines.

The job's outputs are already in the storage. The archive has the rest of `work/`: the workflow's own
files, with the modification times that Snakemake compares, and Snakemake's records about its outputs.

A successor runs what it finds there, so it uses nothing that was changed since the job ended: the
checksums are in the job's labels, which nobody but the service can change then.
"""

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self
from uuid import UUID

from flows.contract.storage import BlobNotFound, Storage, job_key

_ARCHIVE = "work.tar"
_MANIFEST = "outputs.json"
_NOT_KEPT = (".snakemake/attempts", ".snakemake/locks", ".snakemake/log", ".snakemake/shadow")
"""Logs of attempts could contain secrets, and nobody needs them to resume a job."""
_DOWNLOADS_AT_ONCE = 8
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Left:
    """Checksums of what a job has left: of its manifest, and of its archive if there is one."""

    manifest: str
    archive: str | None = None

    def __str__(self) -> str:
        return self.manifest if self.archive is None else f"{self.manifest}.{self.archive}"

    @classmethod
    def parse(cls, text: str) -> Self:
        manifest, _, archive = text.partition(".")
        return cls(manifest, archive or None)


class ChangedSince(Exception):
    """What a job has left is not what it was when the job ended."""


def keep_work(storage: Storage, job_id: UUID, work: Path, manifest: Path) -> str:
    """Store `work` without the outputs that the manifest lists. Returns the checksum of the archive.

    Raises `StorageError`.
    """
    left_out = {*_NOT_KEPT, *_outputs(json.loads(manifest.read_bytes()))}

    def is_kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if str(PurePosixPath(member.name)) in left_out else member

    with tempfile.TemporaryFile(dir=manifest.parent) as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(work, arcname=".", filter=is_kept)
        checksum = _sha256(packed)
        storage.put(job_key(job_id, _ARCHIVE), packed)
        return checksum


def read_manifest(storage: Storage, job_id: UUID, left: Left | None) -> bytes:
    """The manifest of a job that has ended. Raises `ChangedSince` and `StorageError`.

    On a disk that stays, rules can't reach it.
    """
    content = b"".join(storage.read(job_key(job_id, _MANIFEST)))
    expected = None if left is None else left.manifest
    if storage.outlives_machines and hashlib.sha256(content).hexdigest() != expected:
        raise ChangedSince
    return content


def bring_back_work(storage: Storage, job_id: UUID, work: Path, left: Left | None) -> bool:
    """Restore `work` as the job left it, atomically. Returns False if nothing was saved.

    Raises `ChangedSince` before anything is unpacked, and `StorageError`.
    """
    if left is None or left.archive is None:
        return False
    partial = work.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tempfile.TemporaryFile(dir=work.parent) as packed:
            packed.writelines(storage.read(job_key(job_id, _ARCHIVE)))
            manifest = json.loads(read_manifest(storage, job_id, left))
            if _sha256(packed) != left.archive:
                raise ChangedSince
            with tarfile.open(fileobj=packed) as archive:
                archive.extractall(partial, filter="tar")
    except BlobNotFound:
        return False
    inside = partial.resolve()
    checksums = {item["path"]: item.get("sha256") for item in manifest["outputs"]}
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as downloads:
        for done in [
            downloads.submit(_download, storage, job_id, path, partial / path, modified_at, checksums[path])
            for path, modified_at in _outputs(manifest).items()
            if (partial / path)
            .resolve()
            .is_relative_to(inside)  # not through a link: the rule runs again instead
        ]:
            done.result()
    partial.replace(work)
    return True


def _sha256(file: IO[bytes]) -> str:
    """Leaves the file at its beginning."""
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def _outputs(manifest: Mapping[str, Any]) -> dict[str, datetime]:
    """The modification time of each output in `work`, by path."""
    items = [item for item in manifest["outputs"] if "file" not in item and not item.get("is_encoded")]
    return {item["path"]: datetime.fromisoformat(item["modified_at"]) for item in items}


def _download(
    storage: Storage, job_id: UUID, path: str, file: Path, modified_at: datetime, sha256: str | None
) -> None:
    """Very large outputs have no checksum. Raises `ChangedSince`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w+b") as content:
        content.writelines(storage.read(job_key(job_id, "work", path)))
        if sha256 is not None and _sha256(content) != sha256:
            raise ChangedSince
    os.utime(file, (modified_at.timestamp(), modified_at.timestamp()))
