"""Remembers which workflow lies in a working directory, so that a later job can replace it by another.

The results of the earlier jobs stay. A file that has not changed keeps its time, so that Snakemake makes
only what is affected.
"""

import filecmp
import os
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.contract.job_files import open_file
from flows.contract.sources import WorkflowSource
from flows.workspace.additions import place_in

_PLACE = Path(".snakemake", "source.json")
_MOST_FILES = 50_000


class SourceRecord(BaseModel):
    """A workflow in a working directory."""

    model_config = ConfigDict(frozen=True)

    workflow: WorkflowSource
    files: tuple[str, ...] = ()
    """Its files and links; empty if they are too many."""

    @classmethod
    def of(cls, workflow: WorkflowSource, work: Path) -> "SourceRecord":
        """The record of a workflow that has just been staged in `work`."""
        files = _files(work)
        return cls(workflow=workflow, files=tuple(files) if len(files) <= _MOST_FILES else ())

    @classmethod
    def read(cls, work: Path) -> "SourceRecord | None":
        """The record of `work`; None if there is none that can be read."""
        try:
            with open_file(work / _PLACE) as file:
                return cls.model_validate_json(file.read())
        except (OSError, ValidationError):
            return None

    def write(self, work: Path) -> None:
        place = place_in(work, str(_PLACE))
        place.unlink(missing_ok=True)  # a rule may have put a link there
        place.write_text(self.model_dump_json(exclude_none=True))


def replace_workflow(work: Path, new: Path, old_files: tuple[str, ...]) -> int:
    """Replace the workflow in `work` by the one in `new`, which is gone afterwards.

    Returns the number of files that have changed, come or gone. Raises `PlaceTaken`, where a rule has put
    something else in the place of a directory.
    """
    new_files = _files(new)
    changed = sum(_take(work, new, name) for name in new_files)
    for name in set(old_files).difference(new_files):
        place = work / name
        is_inside = Path(os.path.realpath(place.parent)).is_relative_to(work)
        if is_inside and (place.is_symlink() or place.is_file()):
            place.unlink()
            changed += 1
    shutil.rmtree(new)
    return changed


def _take(work: Path, new: Path, name: str) -> bool:
    """Move one file to its place, unless the same is there already; whether it was moved."""
    place, file = place_in(work, name), new / name
    if _is_same(place, file):
        return False
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    file.replace(place)
    os.utime(place, follow_symlinks=False)
    return True


def _is_same(place: Path, file: Path) -> bool:
    if file.is_symlink() or place.is_symlink():
        return file.is_symlink() and place.is_symlink() and os.readlink(file) == os.readlink(place)
    return place.is_file() and filecmp.cmp(place, file, shallow=False)


def _files(directory: Path) -> list[str]:
    return [
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if (path.is_symlink() or path.is_file()) and path.relative_to(directory).parts[0] != ".snakemake"
    ]
