"""Opens the files of a job safely, whatever its rules have put in their place.

A rule runs as the worker's user, so it can put a link, a pipe or a device where the service expects a
file of the job, at any moment. Following it could send a client something that only the service may read.
"""

import errno
import os
import shutil
import stat
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from uuid import UUID

_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def open_file(place: Path, within: Path | None = None) -> BinaryIO:
    """Open the regular file at `place`. With `within`, links may lead to any file below that directory.

    Both paths must be free of links. The checks apply to the open file, so it does not matter what a rule
    does meanwhile. Raises `OSError`, and `FileNotFoundError` for anything that is not such a file.
    """
    try:
        # O_PATH names the file without opening it: opening a pipe blocks, opening a device may use it.
        found = os.open(place, os.O_PATH)
    except ValueError as error:  # a NUL, or a character that no name can contain
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


def work_of(
    directory: Path, project_roots: Sequence[Path] = (), sharing: Collection[UUID] | None = None
) -> Path:
    """The working directory of a job: its own `work`, that of the job that it resumes, or a project's.

    Only the links that staging creates are followed: `../<job id>/work`, to the jobs in `sharing` only if
    that is given, and absolute ones to directories below `project_roots`. For any other link this returns
    the path of the link itself, so that no file behind it is accepted.
    """
    work = directory / "work"
    try:
        target = PurePosixPath(os.readlink(work))
    except OSError:
        return work
    match target.parts:
        case ("..", name, "work") if _is_job_id(name) and (sharing is None or UUID(name) in sharing):
            return directory.parent / name / "work"
        case ("/", *_) if _is_project(Path(target), project_roots):
            return Path(target)
        case _:
            return work


def remove_tree(directory: Path) -> None:
    """Remove a directory and its content, including what a rule has made read-only. Raises `OSError`."""
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
    for parent, names, _ in os.walk(directory):  # top-down: each is made writable before it is listed
        for below in (Path(parent, name) for name in names):
            if not below.is_symlink():
                below.chmod(stat.S_IRWXU)


def _is_job_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _is_project(directory: Path, roots: Sequence[Path]) -> bool:
    real = Path(os.path.realpath(directory))
    return real == directory and any(real.is_relative_to(os.path.realpath(root)) for root in roots)


def _no_file(place: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "Not a regular file", str(place))
