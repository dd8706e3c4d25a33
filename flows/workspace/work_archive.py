"""Saves the working directory of an incomplete job, where disks do not outlive their machines.

The job's outputs are already in the storage. The archive has the rest of `work/`: the workflow's own
files, with the modification times that Snakemake compares, and Snakemake's records about its outputs.
"""

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

from flows.contract.storage import BlobNotFound, Storage, job_key

_ARCHIVE = "work.tar"
_MANIFEST = "outputs.json"
_NOT_KEPT = (".snakemake/attempts", ".snakemake/locks", ".snakemake/log", ".snakemake/shadow")
"""Logs of attempts could contain secrets, and nobody needs them to resume a job."""
_DOWNLOADS_AT_ONCE = 8


def keep_work(storage: Storage, job_id: UUID, work: Path, manifest: Path) -> None:
    """Store `work` without the outputs that the manifest lists. Raises `StorageError`."""
    left_out = {*_NOT_KEPT, *_outputs(json.loads(manifest.read_bytes()))}

    def is_kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if str(PurePosixPath(member.name)) in left_out else member

    with tempfile.TemporaryFile(dir=manifest.parent) as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(work, arcname=".", filter=is_kept)
        storage.put(job_key(job_id, _ARCHIVE), packed)


def bring_back_work(storage: Storage, job_id: UUID, work: Path) -> bool:
    """Restore `work` as the job left it, atomically. Returns False if nothing was saved.

    Raises `StorageError`.
    """
    partial = work.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tempfile.TemporaryFile(dir=work.parent) as packed:
            packed.writelines(storage.read(job_key(job_id, _ARCHIVE)))
            packed.seek(0)
            with tarfile.open(fileobj=packed) as archive:
                archive.extractall(partial, filter="tar")
        manifest = json.loads(b"".join(storage.read(job_key(job_id, _MANIFEST))))
    except BlobNotFound:
        return False
    inside = partial.resolve()
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as downloads:
        for done in [
            downloads.submit(_download, storage, job_key(job_id, "work", path), partial / path, modified_at)
            for path, modified_at in _outputs(manifest).items()
            if (partial / path)
            .resolve()
            .is_relative_to(inside)  # not through a link: the rule runs again instead
        ]:
            done.result()
    partial.replace(work)
    return True


def _outputs(manifest: Mapping[str, Any]) -> dict[str, datetime]:
    """The modification time of each output in `work`, by path."""
    items = [item for item in manifest["outputs"] if "file" not in item and not item.get("is_encoded")]
    return {item["path"]: datetime.fromisoformat(item["modified_at"]) for item in items}


def _download(storage: Storage, key: str, file: Path, modified_at: datetime) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as content:
        content.writelines(storage.read(key))
    os.utime(file, (modified_at.timestamp(), modified_at.timestamp()))
