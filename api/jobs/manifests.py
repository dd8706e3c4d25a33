"""Reads what jobs have published. Parsed manifests are kept, because a list is read page by page."""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from uuid import UUID

from pydantic import ValidationError

from api.web.problems import ManifestDamaged
from flows.contract.manifest import FileKind, Manifest, OutputItem
from flows.contract.storage import BlobNotFound, Storage, job_key

LARGEST_MANIFEST = 32 << 20
"""In bytes: about 150,000 outputs. Without a limit, a rule could write one that fills the memory."""

KEPT_BYTES = LARGEST_MANIFEST
"""Of all manifests that are kept; parsed, they take about ten times as much memory."""

_MANIFESTS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Published:
    """The manifest of a job, for lists and look-ups."""

    manifest: Manifest
    paths: tuple[str, ...]
    """Sorted."""
    items: tuple[OutputItem, ...]
    """In the same order."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Published":
        items = sorted(manifest.outputs, key=lambda item: item.path)
        return cls(manifest, tuple(item.path for item in items), tuple(items))

    def after(self, path: str | None, kinds: Collection[FileKind]) -> Iterator[OutputItem]:
        """The files of these kinds, sorted by path, from the one after `path` on."""
        begin = 0 if path is None else bisect_right(self.paths, path)
        return (
            self.items[place] for place in range(begin, len(self.items)) if self.items[place].kind in kinds
        )

    def find(self, path: str) -> OutputItem | None:
        place = bisect_right(self.paths, path) - 1
        return self.items[place] if place >= 0 and self.paths[place] == path else None


_NOTHING = Published.of(Manifest())


class Manifests:
    """The manifests of all jobs. Thread-safe; reading one blocks."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # Parsing one holds the interpreter, for a second at worst.
        self._readers = threading.BoundedSemaphore(_MANIFESTS_AT_ONCE)
        self._kept: OrderedDict[bytes, tuple[int, Published]] = OrderedDict()  # the last one is the newest
        self._lock = threading.Lock()

    def read(self, job_id: UUID) -> Published:
        """What the job has published; nothing until then.

        Raises `ManifestDamaged` and `flows.contract.storage.StorageError`.
        """
        with self._readers:
            try:
                key = job_key(job_id, "outputs.json")
                text = b"".join(self._storage.read(key, last=LARGEST_MANIFEST + 1))
            except BlobNotFound:
                return _NOTHING
            if len(text) > LARGEST_MANIFEST:
                raise _damaged(job_id, f"it is larger than {LARGEST_MANIFEST:,} bytes")
            # By its content: reading is quick, and what storage says about a file may be older than it.
            digest = blake2b(text).digest()
            return self._find(digest) or self._keep(digest, len(text), _parsed(job_id, text))

    def _find(self, digest: bytes) -> Published | None:
        with self._lock:
            if digest not in self._kept:
                return None
            self._kept.move_to_end(digest)
            return self._kept[digest][1]

    def _keep(self, digest: bytes, size: int, published: Published) -> Published:
        with self._lock:
            self._kept[digest] = (size, published)
            while sum(size for size, _ in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return published


def _parsed(job_id: UUID, text: bytes) -> Published:
    try:
        return Published.of(Manifest.model_validate_json(text))
    except ValidationError as error:
        raise _damaged(job_id, str(error)) from error


def _damaged(job_id: UUID, reason: str) -> ManifestDamaged:
    return ManifestDamaged(
        f"The manifest of job {job_id} can't be read: {reason}",
        "Report this to the operator: outputs.json of the job is damaged, or has another version.",
    )
