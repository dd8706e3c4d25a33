"""A job's outputs: the list in its manifest, and the files."""

import os
from collections.abc import Collection
from itertools import islice
from pathlib import PurePosixPath
from typing import BinaryIO
from uuid import UUID

from fastapi import Response, status
from fastapi.responses import FileResponse, RedirectResponse
from starlette.types import Receive, Scope, Send

from api.jobs.manifests import Manifests
from api.web.cursors import OutputPosition
from api.web.fair_limits import FairLimit
from api.web.problems import NotFound
from api.web.queries import OutputQuery
from api.web.schemas import Job, Output, OutputPage
from flows.contract.manifest import FileKind, Manifest
from flows.contract.storage import BlobNotFound, Method, Storage, job_key, media_type_of

_READS_AT_ONCE = 4
_OF_ONE_CALLER = 2


class Outputs:
    """The outputs of all jobs. Methods block: call them by `reads`.

    Every method may raise `api.web.problems.ManifestDamaged` and `flows.contract.storage.StorageError`.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._manifests = Manifests(storage)
        self.reads = FairLimit(_READS_AT_ONCE, _OF_ONE_CALLER)

    def page(self, job_id: UUID, query: OutputQuery) -> OutputPage:
        """Files sorted by path; none until the job has published them. Raises `BadCursor`."""
        listing = query.fingerprint(job_id)
        position = OutputPosition.decode(query.cursor, listing)
        rest = self._manifests.read(job_id).after(position.after if position else None, query.kind)
        page = list(islice(rest, query.limit))
        has_more = next(rest, None) is not None
        end = OutputPosition(listing=listing, after=page[-1].path) if has_more else None
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

    def download(
        self,
        job_id: UUID,
        path: str,
        method: Method,
        sharing: Collection[UUID] = frozenset(),
        *,
        is_shown: bool = False,
    ) -> Response:
        """The file, with support for ranges; or a redirect to it. If `is_shown`, browsers show it.

        It is a file of the job, or of one of those in `sharing`, in whose directory the job works.
        Raises `NotFound` for every path that the manifest does not list.
        """
        item = self._manifests.read(job_id).find(path)
        if item is None:
            raise _no_output(job_id, path)
        try:
            place = self._storage.locate(job_key(job_id, *item.place), method, sharing)
        except BlobNotFound as error:
            raise _no_output(job_id, path) from error
        if not isinstance(place, str):
            return _OpenFile(place, path, is_shown=is_shown)
        # The signature is valid for this method only, and 307 keeps it; clients send Range again.
        return RedirectResponse(
            place, status.HTTP_307_TEMPORARY_REDIRECT, headers={"Cache-Control": "no-store"}
        )

    def manifest(self, job_id: UUID) -> Manifest:
        """What the job has published; empty until then."""
        return self._manifests.read(job_id).manifest


_SHOWN_AS_TEXT = frozenset({".bed", ".csv", ".err", ".json", ".log", ".md", ".out", ".tsv", ".vcf", ".yaml"})
_INLINE = "data: blob: 'unsafe-inline'"
_AS_A_STRANGER = {
    "Content-Security-Policy": "sandbox allow-scripts allow-popups allow-downloads; "
    f"default-src {_INLINE}; script-src {_INLINE} 'unsafe-eval'; base-uri 'none'; form-action 'none'"
}
"""A page that a workflow has made, such as a report, runs its scripts. It has an origin of its own, and so
reaches nothing of this service; and it connects to nothing."""


class _OpenFile(FileResponse):
    """An output that is already open: the file that was checked is sent, even if a rule replaces it."""

    def __init__(self, file: BinaryIO, path: str, *, is_shown: bool) -> None:
        self._file = file
        super().__init__(
            f"/proc/self/fd/{file.fileno()}",
            media_type=_shown_type(path) if is_shown else media_type_of(path),
            filename=PurePosixPath(path).name,
            stat_result=os.fstat(file.fileno()),
            # An output is data: browsers must not interpret it as a page of this service.
            headers={"X-Content-Type-Options": "nosniff", **(_AS_A_STRANGER if is_shown else {})},
            content_disposition_type="inline" if is_shown else "attachment",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


def _shown_type(path: str) -> str:
    """Browsers save what they don't know; these are text."""
    is_text = PurePosixPath(path).suffix in _SHOWN_AS_TEXT
    return "text/plain; charset=utf-8" if is_text else media_type_of(path)


def check_files_are_here(job: Job) -> None:
    """Raises `NotFound` for an attached run."""
    if job.attached:
        raise NotFound(
            f"The job {job.id} is an attached run: its files are at {job.place}, not in the service.",
            f"Look for them there; GET /jobs/{job.id}/tasks names the outputs of each rule job.",
        )


def _no_output(job_id: UUID, path: str) -> NotFound:
    return NotFound(
        f"The job {job_id} has no output '{path}'.", f"GET /jobs/{job_id}/outputs lists its outputs."
    )
