"""A job's outputs: what its manifest lists, and the files themselves."""

import mimetypes
import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from fastapi.responses import FileResponse
from pydantic import BaseModel, NonNegativeInt, ValidationError

from api.cursors import OutputPosition
from api.problems import ManifestDamaged, NotFound
from api.queries import PageQuery
from api.schemas import Output, OutputPage

_MEDIA_TYPES = mimetypes.MimeTypes()
_MEDIA_TYPES.add_type("text/plain", ".vcf")  # a variant call file; the registered type is that of vCards


class _Item(BaseModel):
    path: str
    size: NonNegativeInt
    sha256: str
    modified_at: datetime


class _Manifest(BaseModel):
    """What the worker publishes at the end of a job (`flows.workspace`)."""

    version: Literal[1] = 1
    outputs: tuple[_Item, ...] = ()


class Outputs:
    """The outputs of all jobs below one home directory. Blocks while it reads: call it in a thread."""

    def __init__(self, home: Path) -> None:
        self._jobs = home / "jobs"

    def page(self, job_id: UUID, query: PageQuery) -> OutputPage:
        """Outputs by path; none while the job goes on. Raises `BadCursor` and `ManifestDamaged`."""
        listing = query.fingerprint(job_id)
        position = OutputPosition.decode(query.cursor, listing)
        items = sorted(self._manifest(job_id).outputs, key=lambda item: item.path)
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

    def download(self, job_id: UUID, path: str) -> FileResponse:
        """The file itself, in ranges if asked. Raises `NotFound` for all that the manifest does not list."""
        if all(item.path != path for item in self._manifest(job_id).outputs):
            raise _no_output(job_id, path)
        directory = Path(os.path.realpath(self._jobs / str(job_id)))
        file = Path(os.path.realpath(directory / "work" / path))
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

    def _manifest(self, job_id: UUID) -> _Manifest:
        try:
            text = (self._jobs / str(job_id) / "outputs.json").read_bytes()
        except FileNotFoundError:
            return _Manifest()
        except OSError as error:
            raise _damaged(job_id, error) from error
        try:
            return _Manifest.model_validate_json(text)
        except ValidationError as error:
            raise _damaged(job_id, error) from error


def media_type_of(path: str) -> str:
    """What the file holds, by its name; what is packed is told as packed."""
    media_type, encoding = _MEDIA_TYPES.guess_type(path)
    if encoding == "gzip":
        return "application/gzip"
    return "application/octet-stream" if encoding or not media_type else media_type


def _no_output(job_id: UUID, path: str) -> NotFound:
    return NotFound(
        f"The job {job_id} has no output '{path}'.", f"GET /jobs/{job_id}/outputs lists those that it has."
    )


def _damaged(job_id: UUID, error: Exception) -> ManifestDamaged:
    return ManifestDamaged(
        f"The manifest of job {job_id} can't be read: {error}",
        "Tell the operator: outputs.json in the job's directory is damaged, or of another version.",
    )
