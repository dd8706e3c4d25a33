"""Lists the outputs of a job in its manifest, and publishes them."""

import hashlib
import io
import os
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from uuid import UUID

from flows.contract.environments import EnvironmentRecord
from flows.contract.job_files import open_file
from flows.contract.manifest import MANIFEST_NAME, Manifest, OutputItem, SnakefileItem
from flows.contract.storage import BlobNotFound, LocalStorage, Storage, job_key

_DIRECTORY_MARK = ".snakemake_timestamp"
"""Snakemake creates it in every directory that is an output."""

_LONGEST_SNAKEFILE = 1 << 20


class Publishing:
    """Publishes the outputs of one job, whose files are on `disk` below its key."""

    def __init__(self, job_id: UUID, storage: Storage, disk: LocalStorage) -> None:
        self._job_id = job_id
        self._storage = storage
        self._disk = disk

    def publish(
        self,
        outputs: Iterable[str],
        report: Path,
        logs: Iterable[Path],
        snakefile: SnakefileItem | None,
        environment: EnvironmentRecord | None,
    ) -> int:
        """Store those of `outputs`, `report` and `logs` that exist. Returns the number of outputs.

        The manifest is stored last, so every file that it lists exists. Raises `StorageError`.
        """
        items = list(self._items(outputs))
        path = _free_path(report.name, {item.path for item in items})
        if (item := self._item(path, (report.name,))) is not None:
            items.append(item)
        log_keys = [job_key(self._job_id, log.name) for log in logs]
        self._storage.publish(
            [
                *(job_key(self._job_id, *item.place) for item in items),
                *(key for key in log_keys if self._disk.size(key) is not None),
            ],
            self._disk,
        )
        manifest = Manifest(outputs=tuple(items), snakefile=snakefile, environment=environment)
        key = job_key(self._job_id, MANIFEST_NAME)
        # Atomically: a reader sees the whole manifest or none.
        self._disk.put(key, io.BytesIO(manifest.model_dump_json(exclude_none=True).encode()))
        self._storage.publish([key], self._disk)
        return len(items)

    def _items(self, outputs: Iterable[str]) -> Iterator[OutputItem]:
        for path in sorted(set(outputs)):
            if Path(path).is_absolute() or not _is_text(path):
                continue
            if (item := self._item(path, ("work", path))) is not None:
                yield item

    def _item(self, path: str, place: tuple[str, ...]) -> OutputItem | None:
        """The output named `path`: the file `place` in the job's directory, or None if it is missing."""
        try:
            file = self._disk.open(job_key(self._job_id, *place))
        except BlobNotFound:
            return None
        with file:
            checksum = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # typeshed asks for more than it needs
            status = os.fstat(file.fileno())
        return OutputItem(
            path=path,
            size=status.st_size,
            sha256=checksum.hexdigest(),
            modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
            file=None if place[0] == "work" else place[0],
        )


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


def _is_text(path: str) -> bool:
    """Whether JSON can contain this name: file names may have bytes that are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _free_path(name: str, taken: Collection[str]) -> str:
    """`name`, or a similar name if an output of the workflow already has it."""
    others = (f"snakemake-{number}-{name}" for number in count(2))
    return next(path for path in chain((name, f"snakemake-{name}"), others) if path not in taken)
