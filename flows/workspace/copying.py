"""Copies a directory of a workflow: without duplicating data where the file system can share it.

Files are reflinked (`FICLONE`, on Btrfs, XFS, bcachefs and others) or else copied, several at once.
"""

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from flows.contract.workflow_links import outside_target

_FICLONE = 0x40049409
"""`linux/fs.h`: share the blocks of another file."""

_COPIES_AT_ONCE = 8
_PROGRESS_SECONDS = 10.0
_GIB = 1 << 30
_MIB = 1 << 20

Report = Callable[[str], None]


class CopyFailed(Exception):
    """A file can't be copied; the message has its path in the source."""


class NoSpace(Exception):
    """The disk has too little space for the copy."""


@dataclass
class _Inventory:
    directories: list[Path] = field(default_factory=list)
    files: list[tuple[Path, os.stat_result]] = field(default_factory=list)
    links: list[tuple[Path, str]] = field(default_factory=list)
    """Links, and where their copies lead."""

    @property
    def bytes(self) -> int:
        return sum(status.st_blocks * 512 for _, status in self.files)


def copy_tree(
    source: Path,
    destination: Path,
    is_left_out: Callable[[Path], bool],
    roots: Sequence[Path],
    report: Report,
) -> None:
    """Copy `source` to `destination`, which must not exist, with times and permissions.

    `is_left_out` gets paths relative to `source`. Links that lead out of `source` are made to lead to the
    same place. Raises `CopyFailed`, `NoSpace` and `flows.contract.workflow_links.LinkRefused`.
    """
    inventory = _inventory(source, is_left_out, roots)
    for directory in inventory.directories:
        (destination / directory).mkdir()
    _copy_files(inventory, source, destination, report)
    for link, target in inventory.links:
        (destination / link).symlink_to(target)
        # Its own time counts too, when Snakemake compares inputs with outputs.
        times = os.lstat(source / link)
        os.utime(destination / link, ns=(times.st_atime_ns, times.st_mtime_ns), follow_symlinks=False)
    for directory in reversed(inventory.directories):
        shutil.copystat(source / directory, destination / directory)


def _inventory(source: Path, is_left_out: Callable[[Path], bool], roots: Sequence[Path]) -> _Inventory:
    inventory = _Inventory()
    waiting = [Path()]
    while waiting:
        directory = waiting.pop()
        inventory.directories.append(directory)
        for entry in _listed(source, directory):
            path = directory / entry.name
            if is_left_out(path):
                continue
            status = entry.stat(follow_symlinks=False)
            if entry.is_symlink():
                target = outside_target(source / path, source, roots)
                inventory.links.append((path, str(target or os.readlink(source / path))))
            elif stat.S_ISDIR(status.st_mode):
                waiting.append(path)
            elif stat.S_ISREG(status.st_mode):
                inventory.files.append((path, status))
            else:
                raise CopyFailed(f"{path} is neither a file, a directory nor a link")
    return inventory


def _listed(source: Path, directory: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(source / directory) as entries:
            return list(entries)
    except OSError as error:
        raise CopyFailed(f"{directory} can't be read: {error.strerror}") from error


def _copy_files(inventory: _Inventory, source: Path, destination: Path, report: Report) -> None:
    files = iter(inventory.files)
    # The first file shows whether the file system shares blocks; only a real copy needs space.
    if (first := next(files, None)) is not None and not _copy(source, destination, first[0]):
        _check_space(inventory.bytes, destination)
    done_bytes, total = 0, inventory.bytes
    reported_at = time.monotonic()
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as copies:
        waiting = [(copies.submit(_copy, source, destination, path), status) for path, status in files]
        try:
            for copied, status in waiting:
                copied.result()
                done_bytes += status.st_blocks * 512
                if time.monotonic() - reported_at >= _PROGRESS_SECONDS:
                    reported_at = time.monotonic()
                    report(f"Copied {done_bytes / _GIB:.1f} of {total / _GIB:.1f} GiB.")
        except BaseException:
            copies.shutdown(cancel_futures=True)
            raise


def _copy(source: Path, destination: Path, path: Path) -> bool:
    """Copy one file; whether it shares its blocks."""
    try:
        with (source / path).open("rb") as original, (destination / path).open("xb") as copy:
            shares = _share_blocks(original.fileno(), copy.fileno())
            if not shares:
                _copy_data(original.fileno(), copy.fileno())
        shutil.copystat(source / path, destination / path)
    except OSError as error:
        raise CopyFailed(f"{path} can't be copied: {error.strerror}") from error
    return shares


def _share_blocks(original: int, copy: int) -> bool:
    try:
        fcntl.ioctl(copy, _FICLONE, original)
    except OSError:
        return False
    return True


def _copy_data(original: int, copy: int) -> None:
    """Copy inside the kernel, holes as holes."""
    size = os.fstat(original).st_size
    os.ftruncate(copy, size)
    position = 0
    while position < size:
        try:
            position = os.lseek(original, position, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        end = os.lseek(original, position, os.SEEK_HOLE)
        os.lseek(copy, position, os.SEEK_SET)
        while position < end:
            sent = os.sendfile(copy, original, position, end - position)
            if sent == 0:  # the file has become shorter
                return
            position += sent


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"


def _check_space(needed: int, destination: Path) -> None:
    free = shutil.disk_usage(destination).free
    if needed > free:
        raise NoSpace(f"a copy of the workflow's directory needs {_size(needed)}, and {_size(free)} are free")
