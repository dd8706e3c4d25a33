"""Lists the outputs and logs of a job in its manifest, and publishes them."""

import hashlib
import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from flows.contract.environments import EnvironmentRecord
from flows.contract.job_files import open_file
from flows.contract.manifest import MANIFEST_NAME, FileKind, Manifest, OutputItem, SnakefileItem, listed_path
from flows.contract.storage import BlobNotFound, IsStopped, LocalStorage, Storage, job_key
from flows.snakemake_process.events import ATTEMPT_LOGS

_DIRECTORY_MARK = ".snakemake_timestamp"
"""Snakemake creates it in every directory that is an output."""

_CHUNK_BYTES = 1 << 20
_LONGEST_SNAKEFILE = 1 << 20
_RESULTS = (FileKind.OUTPUT, FileKind.REPORT)


class Publishing:
    """Publishes the outputs of one job, whose files are on `disk` below its key."""

    def __init__(
        self,
        job_id: UUID,
        storage: Storage,
        disk: LocalStorage,
        checksum_max_bytes: int,
        is_stopped: IsStopped,
    ) -> None:
        """Files of more than `checksum_max_bytes` are listed without a checksum.

        When `is_stopped` says so, the rest is listed without checksums, and what would still have to be
        uploaded is left out.
        """
        self._is_stopped = is_stopped
        self._checksum_max_bytes = checksum_max_bytes
        self._job_id = job_id
        self._storage = storage
        self._disk = disk

    def publish(
        self,
        files: Mapping[FileKind, Iterable[str]],
        own: Mapping[FileKind, Path],
        unlisted: Iterable[Path],
        snakefile: SnakefileItem | None,
        environment: EnvironmentRecord | None,
    ) -> int:
        """Store those files that exist. Returns the number of outputs, with the report.

        `files` are the workflow's, relative to `work`; a file of two kinds has the first. The files in
        `own` and `unlisted` lie beside `work`, and the manifest does not list those in `unlisted`. It is
        stored last, so every file that it lists exists. Raises `StorageError`.
        """
        items = list(self._items(files))
        for kind, file in own.items():
            path = _free_path(file.name, {item.path for item in items})
            if (item := self._item(path, (file.name,), kind)) is not None:
                items.append(item)
        log_keys = [job_key(self._job_id, log.name) for log in unlisted]
        stored = self._storage.publish(
            [
                *(job_key(self._job_id, *item.place) for item in items),
                *(key for key in log_keys if self._disk.size(key) is not None),
            ],
            self._disk,
            self._is_stopped,
        )
        items = [item for item in items if job_key(self._job_id, *item.place) in stored]
        manifest = Manifest(outputs=tuple(items), snakefile=snakefile, environment=environment)
        key = job_key(self._job_id, MANIFEST_NAME)
        # Atomically: a reader sees the whole manifest or none.
        self._disk.put(key, io.BytesIO(manifest.model_dump_json(exclude_none=True).encode()))
        self._storage.publish([key], self._disk)
        return sum(item.kind in _RESULTS for item in items)

    def _items(self, files: Mapping[FileKind, Iterable[str]]) -> Iterator[OutputItem]:
        kinds = {path: kind for kind in reversed(list(files)) for path in files[kind]}
        for path, kind in sorted(kinds.items()):
            if Path(path).is_absolute():
                continue
            item = self._item(path, ("work", path), kind)
            # Most attempts write nothing, and so many empty files would only hide the others.
            if item is not None and (item.size or not path.startswith(f"{ATTEMPT_LOGS}/")):
                yield item

    def _item(self, path: str, place: tuple[str, ...], kind: FileKind) -> OutputItem | None:
        """The item named `path`: the file `place` in the job's directory, or None if it is missing."""
        try:
            file = self._disk.open(job_key(self._job_id, *place))
        except BlobNotFound:
            return None
        with file:
            status = os.fstat(file.fileno())
            is_small = status.st_size <= self._checksum_max_bytes
            checksum = _sha256(file, self._is_stopped) if is_small else None
        listed, is_encoded = listed_path(path)
        return OutputItem(
            path=listed,
            is_encoded=is_encoded or None,
            kind=kind,
            size=status.st_size,
            sha256=checksum,
            modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
            file=None if place[0] == "work" else place[0],
        )


def _sha256(file: BinaryIO, is_stopped: IsStopped) -> str | None:
    """None if it was stopped before the end."""
    digest = hashlib.sha256()
    while not is_stopped():
        if not (chunk := file.read(_CHUNK_BYTES)):
            return digest.hexdigest()
        digest.update(chunk)
    return None


def outside_of(work: Path, outputs: Iterable[str]) -> list[str]:
    """Those `outputs` that lie outside of `work`, or lead out of it, and so can't be published."""
    return [path for path in outputs if not Path(os.path.realpath(work / path)).is_relative_to(work)]


def files_of(work: Path, outputs: Iterable[str]) -> list[str]:
    """`outputs` relative to `work`, with each directory replaced by its files. Skips paths outside `work`."""
    files: list[str] = []
    for path in (work / output for output in outputs):
        # Checked before it is searched: a rule may have replaced it, or `work`, by a link to anywhere.
        if not (path.is_relative_to(work) and Path(os.path.realpath(path)).is_relative_to(work)):
            continue
        found = path.rglob("*") if path.is_dir() else [path]
        files += [
            str(file.relative_to(work))
            for file in found
            if file.is_file() and file.name != _DIRECTORY_MARK and file.resolve().is_relative_to(work)
        ]
    return files


def snakefile_item(work: Path, path: Path) -> SnakefileItem | None:
    """The Snakefile before the first rule runs; None if it is missing or too large."""
    try:
        # In a resumed job, rules have run: one may have replaced it by a link, which counts as missing.
        with open_file(work / path, within=work) as file:
            content = file.read(_LONGEST_SNAKEFILE + 1)
    except FileNotFoundError:
        return None
    if len(content) > _LONGEST_SNAKEFILE:
        return None
    text = content.decode("utf-8", errors="replace")
    return SnakefileItem(path=str(path), text=text)


def _free_path(name: str, taken: Collection[str]) -> str:
    """`name`, or a similar name if an output of the workflow already has it."""
    others = (f"snakemake-{number}-{name}" for number in count(2))
    return next(path for path in chain((name, f"snakemake-{name}"), others) if path not in taken)
