"""The files of a job as its rules have left them: where they belong, and nothing that stands in their place.

A rule runs as the worker's user, so it can put a link, a pipe or a device where the service expects a
file of the job, at any moment. Who follows it would give to a client what only the reader may see.
"""

import errno
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from uuid import UUID

_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def open_file(place: Path, within: Path | None = None) -> BinaryIO:
    """The plain file that really is at `place`; with `within`, links may lead to any file below that.

    Both are paths without links. What is judged is what has been opened, so it does not matter what a
    rule does meanwhile. Raises `OSError`; `FileNotFoundError` for everything that is no such file.
    """
    try:
        # It names the file without opening it: a pipe would wait, and to open a device may be to use it.
        found = os.open(place, os.O_PATH)
    except ValueError as error:  # a NUL, or what no name can hold
        raise _no_file(place) from error
    except OSError as error:
        raise (_no_file(place) if error.errno in _NOTHING_THERE else error) from error
    try:
        same = f"/proc/self/fd/{found}"
        real = Path(os.readlink(same))
        belongs = real == place if within is None else real.is_relative_to(within)
        if not belongs or not stat.S_ISREG(os.fstat(found).st_mode):
            raise _no_file(place)
        return open(same, "rb")
    finally:
        os.close(found)


def work_of(directory: Path) -> Path:
    """Where the job of this directory works: in its own `work`, or in that of the job that it resumes.

    The only link that means something is the one that staging makes, `../<job id>/work`. Of any other,
    it is the path of the link itself, and nothing behind it lies where it belongs.
    """
    work = directory / "work"
    try:
        target = PurePosixPath(os.readlink(work))
    except OSError:
        return work
    match target.parts:
        case ("..", name, "work") if _is_job_id(name):
            return directory.parent / name / "work"
        case _:
            return work


def remove_tree(directory: Path) -> None:
    """Remove a directory with all that is in it, also what a rule has made read-only. Raises `OSError`."""
    try:
        try:
            shutil.rmtree(directory)
        except PermissionError:
            _make_writable(directory)
            shutil.rmtree(directory)
    except RecursionError as error:
        raise OSError(errno.ENAMETOOLONG, "Its directories are nested too deeply", str(directory)) from error


def _make_writable(directory: Path) -> None:
    directory.chmod(stat.S_IRWXU)
    for parent, names, _ in os.walk(directory):  # which looks into each after this has been done to it
        for below in (Path(parent, name) for name in names):
            if not below.is_symlink():
                below.chmod(stat.S_IRWXU)


def _is_job_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _no_file(place: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "No plain file is there", str(place))
