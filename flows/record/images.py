"""The plots of a job that the Prefect UI shows: as they are, so that nobody needs access to the files."""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.contract.job_files import open_file
from flows.contract.storage import media_type_of

MOST_IMAGES = 10
LARGEST_IMAGE_BYTES = 512 * 1024
"""Prefect keeps each in its database."""


@dataclass(frozen=True, slots=True)
class Image:
    path: str
    address: str
    """With the content in it, as in RFC 2397."""


def images_of(work: Path, paths: Iterable[str]) -> Iterator[Image]:
    """The first images among `paths`, which are relative to `work`. Larger ones are left out."""
    left = MOST_IMAGES
    for path in paths:
        media_type = media_type_of(path)
        if left and media_type.startswith("image/") and (content := _content(work, path)):
            left -= 1
            yield Image(path, f"data:{media_type};base64,{base64.b64encode(content).decode()}")


def _content(work: Path, path: str) -> bytes | None:
    try:
        with open_file(work / path, within=work) as file:
            content = file.read(LARGEST_IMAGE_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= LARGEST_IMAGE_BYTES else None
