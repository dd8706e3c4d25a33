"""A job's outputs: the list in its manifest, and the files."""

import os
import threading
from pathlib import PurePosixPath
from typing import BinaryIO
from uuid import UUID

from fastapi import Response, status
from fastapi.responses import FileResponse, RedirectResponse
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from api.web.cursors import OutputPosition
from api.web.problems import ManifestDamaged, NotFound
from api.web.queries import OutputQuery
from api.web.schemas import Output, OutputPage
from flows.contract.manifest import FileKind, Manifest
from flows.contract.storage import BlobNotFound, Method, Storage, job_key, media_type_of

LARGEST_MANIFEST = 32 << 20
"""In bytes: about 150,000 outputs. Without a limit, a rule could write one that fills the memory."""

_MANIFESTS_AT_ONCE = 2


class Outputs:
    """The outputs of all jobs. Methods block: call them in a thread.

    Every method may raise `ManifestDamaged` and `flows.contract.storage.StorageError`.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # Parsing one holds the interpreter, for a second at worst.
        self._readers = threading.BoundedSemaphore(_MANIFESTS_AT_ONCE)

    def page(self, job_id: UUID, query: OutputQuery) -> OutputPage:
        """Files sorted by path; none until the job has published them. Raises `BadCursor`."""
        listing = query.fingerprint(job_id)
        position = OutputPosition.decode(query.cursor, listing)
        items = sorted(self.manifest(job_id).outputs, key=lambda item: item.path)
        rest = [
            item
            for item in items
            if item.kind in query.kind and (position is None or item.path > position.after)
        ]
        page = rest[: query.limit]
        end = OutputPosition(listing=listing, after=page[-1].path) if len(rest) > len(page) else None
        return OutputPage(
            items=[
                Output(
                    path=item.path,
                    kind=item.kind,
                    size_bytes=item.size,
                    sha256=item.sha256,
                    modified_at=item.modified_at,
                    url=Output.url_of(job_id, item.path),
                )
                for item in page
            ],
            next_cursor=end.encode() if end else None,
        )

    def paths(self, job_id: UUID) -> dict[str, str]:
        """The address of each output and of the report, by path."""
        return {
            item.path: Output.url_of(job_id, item.path)
            for item in self.manifest(job_id).outputs
            if item.kind in (FileKind.OUTPUT, FileKind.REPORT)
        }

    def download(self, job_id: UUID, path: str, method: Method) -> Response:
        """The file, with support for ranges; or a redirect to it.

        Raises `NotFound` for every path that the manifest does not list.
        """
        item = next((item for item in self.manifest(job_id).outputs if item.path == path), None)
        if item is None:
            raise _no_output(job_id, path)
        try:
            place = self._storage.locate(job_key(job_id, *item.place), method)
        except BlobNotFound as error:
            raise _no_output(job_id, path) from error
        if not isinstance(place, str):
            return _OpenFile(place, path)
        # The signature is valid for this method only, and 307 keeps it; clients send Range again.
        return RedirectResponse(
            place, status.HTTP_307_TEMPORARY_REDIRECT, headers={"Cache-Control": "no-store"}
        )

    def manifest(self, job_id: UUID) -> Manifest:
        """What the job has published; empty until then."""
        with self._readers:
            return self._read_manifest(job_id)

    def _read_manifest(self, job_id: UUID) -> Manifest:
        try:
            text = b"".join(self._storage.read(job_key(job_id, "outputs.json"), last=LARGEST_MANIFEST + 1))
        except BlobNotFound:
            return Manifest()
        if len(text) > LARGEST_MANIFEST:
            raise _damaged(job_id, f"it is larger than {LARGEST_MANIFEST:,} bytes")
        try:
            return Manifest.model_validate_json(text)
        except ValidationError as error:
            raise _damaged(job_id, str(error)) from error


class _OpenFile(FileResponse):
    """An output that is already open: the file that was checked is sent, even if a rule replaces it."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        super().__init__(
            f"/proc/self/fd/{file.fileno()}",
            media_type=media_type_of(path),
            filename=PurePosixPath(path).name,
            stat_result=os.fstat(file.fileno()),
            # An output is data: browsers must not interpret it as a page of this service.
            headers={"X-Content-Type-Options": "nosniff"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


def _no_output(job_id: UUID, path: str) -> NotFound:
    return NotFound(
        f"The job {job_id} has no output '{path}'.", f"GET /jobs/{job_id}/outputs lists its outputs."
    )


def _damaged(job_id: UUID, reason: str) -> ManifestDamaged:
    return ManifestDamaged(
        f"The manifest of job {job_id} can't be read: {reason}",
        "Report this to the operator: outputs.json of the job is damaged, or has another version.",
    )
