"""Keeps the versions of registered workflows in the storage, one blob each."""

import io

from flows.contract.registered import RegisteredVersion
from flows.contract.storage import BlobNotFound, Storage, workflow_key

_SUFFIX = ".json"


class Registry:
    """Every method blocks, and may raise `flows.contract.storage.StorageError`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, name: str, version: str) -> RegisteredVersion | None:
        """The version; None if it is not registered."""
        try:
            content = b"".join(self._storage.read(workflow_key(name, version)))
        except BlobNotFound:
            return None
        return RegisteredVersion.model_validate_json(content)

    def versions(self, name: str) -> list[RegisteredVersion]:
        """All versions of a workflow, the newest first."""
        names = [each.removesuffix(_SUFFIX) for each in self._storage.names(workflow_key(name))]
        found = [version for each in names if (version := self.read(name, each)) is not None]
        return sorted(found, key=lambda version: version.registered_at, reverse=True)

    def write(self, version: RegisteredVersion) -> None:
        content = io.BytesIO(version.model_dump_json().encode())
        self._storage.put(workflow_key(version.name, version.version), content)
