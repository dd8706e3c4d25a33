"""Adds to a staged workflow what the job brings: small files, and links to data of the server.

In a resumed job, rules have run: a place may be a link, or behind one.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from flows.contract.data_roots import check_input_path
from flows.contract.sources import Input
from flows.contract.untrusted_tree import Refused

_PLACEHOLDERS = frozenset({".gitkeep", ".keep", ".gitignore", "README.md"})
"""What repositories put into a directory that is empty otherwise."""


class PlaceTaken(Refused):
    """The workflow has something else at this place."""


def add_files(work: Path, files: Mapping[str, str]) -> None:
    """Write `files`, by path. One that has the same content already keeps its time."""
    for name, text in files.items():
        place = place_in(work, name)
        content = text.encode()
        if place.is_dir() and not place.is_symlink():
            raise PlaceTaken(
                f"the workflow has a directory at '{name}', where `files` has a file", "Rename one."
            )
        if place.is_symlink() or not place.is_file():  # such as a pipe, which would be waited for
            place.unlink(missing_ok=True)
        if not place.exists() or place.read_bytes() != content:
            place.write_bytes(content)


def add_inputs(
    work: Path, inputs: Mapping[str, Input], roots: Sequence[Path], outputs: Callable[[UUID, str], Path]
) -> None:
    """Link `inputs`, by path, to data below `roots`, or to `outputs` of jobs."""
    for name, data in inputs.items():
        target = check_input_path(data.path, roots) if data.job is None else outputs(data.job, data.path)
        place = place_in(work, name)
        if place.is_symlink() and os.readlink(place) == str(target):
            continue
        _make_free(place, name)
        place.symlink_to(target)
        if target.exists():
            # Its own time counts too, when Snakemake compares inputs with outputs.
            times = target.stat()
            os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns), follow_symlinks=False)


def place_in(work: Path, name: str) -> Path:
    """The path of `name` below `work`; its directory exists. Raises `PlaceTaken`.

    Nothing is added through a link out of `work`.
    """
    place = work / name
    above = place.parent
    while not above.exists():
        above = above.parent
    if not Path(os.path.realpath(above)).is_relative_to(work):
        raise PlaceTaken(
            f"'{name}' would lie behind a link of the workflow that leads out of it", "Use another path."
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise PlaceTaken(f"the workflow has a file above '{name}'", "Use another path.") from None
    return place


def _make_free(place: Path, name: str) -> None:
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        if {entry.name for entry in place.iterdir()} - _PLACEHOLDERS:
            raise PlaceTaken(
                f"the workflow has files in '{name}', where `inputs` links data",
                "Link single files or directories inside of it.",
            )
        shutil.rmtree(place)
