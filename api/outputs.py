"""A job's outputs: what its manifest lists, and the files themselves."""

import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from fastapi import Response, status
from fastapi.responses import FileResponse, RedirectResponse
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from api.listing.cursors import OutputPosition
from api.listing.queries import PageQuery
from api.problems import ManifestDamaged, NotFound
from api.schemas import Output, OutputPage
from flows.spec import RelativePath
from flows.storage import BlobNotFound, Method, Storage, job_key, media_type_of


class OutputItem(BaseModel):
    """A file that a job has published."""

    path: str
    size: NonNegativeInt
    sha256: str
    modified_at: datetime
    file: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")
    """In the job's directory, if it is not the workflow's own `path`."""

    @property
    def place(self) -> tuple[str, ...]:
        """Where it is, below the job's key."""
        return ("work", self.path) if self.file is None else (self.file,)


class SnakefileItem(BaseModel):
    """The Snakefile that ran, and the version of Snakemake that read it."""

    path: RelativePath
    text: str
    snakemake: str


class Manifest(BaseModel):
    """What the worker publishes at the end of a job (`flows.workspace`)."""

    version: Literal[1] = 1
    outputs: tuple[OutputItem, ...] = ()
    snakefile: SnakefileItem | None = None


class Outputs:
    """The outputs of all jobs in one storage. Blocks while it reads: call it in a thread.

    Every method may raise `ManifestDamaged` and `flows.storage.StorageError`.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def page(self, job_id: UUID, query: PageQuery) -> OutputPage:
        """Outputs by path; none while the job goes on. Raises `BadCursor`."""
        listing = query.fingerprint(job_id)
        position = OutputPosition.decode(query.cursor, listing)
        items = sorted(self.manifest(job_id).outputs, key=lambda item: item.path)
        rest = [item for item in items if position is None or item.path > position.after]
        page = rest[: query.limit]
        end = OutputPosition(listing=listing, after=page[-1].path) if len(rest) > len(page) else None
        return OutputPage(
            items=[
                Output(
                    path=item.path,
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
        """Where each output can be downloaded, by path."""
        return {item.path: Output.url_of(job_id, item.path) for item in self.manifest(job_id).outputs}

    def download(self, job_id: UUID, path: str, method: Method) -> Response:
        """The file itself, in ranges if asked, or the way to it.

        Raises `NotFound` for all that the manifest does not list.
        """
        item = next((item for item in self.manifest(job_id).outputs if item.path == path), None)
        if item is None:
            raise _no_output(job_id, path)
        place = self._storage.locate(job_key(job_id, *item.place), method)
        if isinstance(place, Path):
            return self._file(job_id, item, place)
        # Its signature is good for this method only, and 307 keeps it; Range goes along.
        return RedirectResponse(
            place, status.HTTP_307_TEMPORARY_REDIRECT, headers={"Cache-Control": "no-store"}
        )

    def _file(self, job_id: UUID, item: OutputItem, place: Path) -> FileResponse:
        path = item.path
        home = job_key(job_id, "work") if item.file is None else job_key(job_id)
        directory = os.path.realpath(str(self._storage.locate(home)))
        file = Path(os.path.realpath(place))
        # A rule may have made its output a link to anything that the worker can read.
        if not file.is_relative_to(directory):
            raise _no_output(job_id, path)
        try:
            file_status = file.stat()
        except OSError as error:
            raise _no_output(job_id, path) from error
        if not stat.S_ISREG(file_status.st_mode):
            raise _no_output(job_id, path)
        return FileResponse(
            file,
            media_type=media_type_of(path),
            filename=Path(path).name,
            stat_result=file_status,
            # An output is data: no browser shall run it as a page of this service.
            headers={"X-Content-Type-Options": "nosniff"},
        )

    def manifest(self, job_id: UUID) -> Manifest:
        """What the job has published; nothing while it goes on."""
        try:
            text = b"".join(self._storage.read(job_key(job_id, "outputs.json")))
        except BlobNotFound:
            return Manifest()
        try:
            return Manifest.model_validate_json(text)
        except ValidationError as error:
            raise _damaged(job_id, error) from error


def _no_output(job_id: UUID, path: str) -> NotFound:
    return NotFound(
        f"The job {job_id} has no output '{path}'.", f"GET /jobs/{job_id}/outputs lists those that it has."
    )


def _damaged(job_id: UUID, error: Exception) -> ManifestDamaged:
    return ManifestDamaged(
        f"The manifest of job {job_id} can't be read: {error}",
        "Tell the operator: outputs.json in the job's directory is damaged, or of another version.",
    )
