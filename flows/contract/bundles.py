"""Bundles: the directory of a workflow as one tar, gzipped tar or zip file.

`check_bundle`, before one is accepted, and `unpack_bundle`, when a job is staged, read it with the
same code; `flows.contract.untrusted_tree` decides what may be in it. The standard library's
readers trust the lengths in headers, and `tarfile` takes damage in the middle for the end. So they
read from a stream that limits how much it returns and remembers how it ended.
"""

import gzip
import io
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import Field

from flows.contract.untrusted_tree import (
    Contents,
    Directory,
    Entry,
    File,
    Hardlink,
    Refused,
    Symlink,
    TreeLimits,
    check_tree,
    parts_of,
    shown,
    write_tree,
)

_BLOCK = 512
_CHUNK = 1 << 18
_LONGEST_HEADER = 1 << 14
"""Of what tells about a file in a tar file; the longest path is a sixteenth of it."""
_TABLE_BYTES_PER_ENTRY = 320
"""Of a zip file's table of contents: 46 and the name, and what packers add."""
_RATIO_COUNTS_FROM = 1 << 20
"""Below, any ratio is harmless, and the padding of a small tar file makes a large one."""
_LONGEST_LINK = 1024
_PATIENCE_SECONDS = 120.0
"""For a bundle that is made to be slow; one of a gigabyte takes a tenth of it."""

_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,  # gzip.BadGzipFile is one
    ValueError,
    LookupError,
    ArithmeticError,
    RuntimeError,  # RecursionError and NotImplementedError are two
)
"""What the readers raise for bytes that are not as they should be."""


class BundleLimits(TreeLimits):
    """How large a bundle may be, packed and unpacked."""

    bundle_max_bytes: int = Field(
        default=1 << 28, ge=1 << 10, le=1 << 36, description="The largest bundle that is accepted, in bytes."
    )
    bundle_max_ratio: int = Field(
        default=100, ge=2, le=10_000, description="How many times its own size a bundle may unpack to."
    )


class NotAnArchive(Refused):
    """The bytes are no archive that can be read here."""


def check_bundle(archive: BinaryIO, limits: BundleLimits) -> Contents:
    """Read the whole archive and write nothing. Raises `Refused`."""
    contents = check_tree(_entries(archive, limits), limits)
    if not contents.files:
        raise Refused("the bundle holds no file", "Pack the directory that holds the Snakefile.")
    return contents


def unpack_bundle(
    archive: BinaryIO,
    directory: Path,
    limits: BundleLimits,
    subdirectory: str = ".",
    left_out: Container[str] = (),
) -> Contents:
    """Write what is below `subdirectory` to `directory`, which must not exist. Raises `Refused`."""
    entries = _below(subdirectory, _entries(archive, limits))
    return write_tree(entries, directory, limits, left_out)


def _entries(archive: BinaryIO, limits: BundleLimits) -> Iterator[Entry]:
    size = archive.seek(0, io.SEEK_END)
    archive.seek(0)
    start = archive.read(_BLOCK)
    archive.seek(0)
    expansion = _Expansion(size, limits)
    with _told_as_damage():
        if start.startswith(b"PK"):
            yield from _zip_entries(archive, expansion, limits)
        elif start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=archive, mode="rb") as inflated:
                yield from _tar_entries(_TarStream(inflated, expansion))
        elif start[257:262] == b"ustar":
            yield from _tar_entries(_TarStream(archive, expansion))
        else:
            raise NotAnArchive(
                "the bytes are neither a tar, nor a gzipped tar, nor a zip file",
                "Pack the workflow's directory with `tar -czf` or `zip -r`, and send the file as it is.",
            )


def _below(subdirectory: str, entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries of a directory of the tree, by their names from there."""
    above = parts_of(subdirectory)
    if not above:
        yield from entries
        return
    is_there = False
    for entry in entries:
        parts = parts_of(entry.name)
        if parts[: len(above)] != above or (parts == above and not isinstance(entry, Directory)):
            continue
        is_there = True
        name = "/".join(parts[len(above) :])
        match entry:
            case Directory():
                yield Directory(name)
            case File():
                yield File(name, entry.is_executable, entry.content)
            case Symlink():
                yield Symlink(name, entry.target)
            case Hardlink():
                target = parts_of(entry.target)
                if target[: len(above)] != above:
                    raise Refused(f"the hard link {shown(entry.name)} leads out of {shown(subdirectory)}")
                yield Hardlink(name, "/".join(target[len(above) :]))
    if not is_there:
        raise Refused(
            f"the bundle has no directory {shown(subdirectory)}",
            "Set `workflow.subdir` to the directory inside the bundle that holds the workflow.",
        )


def _tar_entries(stream: "_TarStream") -> Iterator[Entry]:
    # "r:" and a forward-only stream: "r|" would collect what a header claims before anybody can object.
    with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]  # it needs no more of a file
        while (member := archive.next()) is not None:
            yield _tar_entry(member, stream)
    stream.finish()


def _tar_entry(member: tarfile.TarInfo, stream: "_TarStream") -> Entry:
    if member.issym():
        return Symlink(member.name, member.linkname)
    if member.islnk():
        return Hardlink(member.name, member.linkname)
    if member.isdir():
        return Directory(member.name)
    if member.isreg() and not member.issparse():
        return File(member.name, bool(member.mode & stat.S_IXUSR), lambda: stream.content(member.size))
    raise Refused(f"{shown(member.name)} is no plain file: a device, a pipe or a sparse file")


def _zip_entries(archive: BinaryIO, expansion: "_Expansion", limits: BundleLimits) -> Iterator[Entry]:
    largest = max(_CHUNK, limits.workflow_max_entries * _TABLE_BYTES_PER_ENTRY)
    source = _Sips(archive, largest)
    with zipfile.ZipFile(source) as opened:
        for info in opened.infolist():
            yield _zip_entry(opened, info, expansion)


def _zip_entry(opened: zipfile.ZipFile, info: zipfile.ZipInfo, expansion: "_Expansion") -> Entry:
    name = info.orig_filename  # `filename` ends at a NUL
    if info.flag_bits & 0x2041:
        raise Refused(f"{shown(name)} is encrypted", "Pack the workflow's directory without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(
            f"{shown(name)} is compressed by a method other than deflate",
            "Pack the workflow's directory with `zip -r`, or with `tar -czf`.",
        )

    def content() -> Iterator[bytes]:
        with _told_as_damage(), opened.open(info) as file:
            while chunk := file.read(_CHUNK):
                expansion.take(len(chunk))
                yield chunk

    # The upper half is what `stat` says of the file, where the packer knew it.
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        if info.file_size > _LONGEST_LINK:
            raise Refused(f"the link {shown(name)} leads nowhere: its target is too long")
        return Symlink(name, b"".join(content()).decode())
    if name.endswith("/") and kind in (0, stat.S_IFDIR) and not info.file_size:
        return Directory(name)
    if not name.endswith("/") and kind in (0, stat.S_IFREG):
        return File(name, bool(mode & stat.S_IXUSR), content)
    raise Refused(f"{shown(name)} is no plain file: a device, a pipe, or something in disguise")


class _Expansion:
    """What an archive may unpack to, and how long that may take."""

    def __init__(self, size: int, limits: BundleLimits) -> None:
        self._ratio = limits.bundle_max_ratio
        self._left = max(_RATIO_COUNTS_FROM, size * limits.bundle_max_ratio)
        self._deadline = time.monotonic() + _PATIENCE_SECONDS

    def take(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise Refused(
                f"the bundle unpacks to more than {self._ratio} times its size",
                "Leave out what is nothing but repetition; "
                "the operator sets the limit with JOBS_BUNDLE_MAX_RATIO.",
            )
        if time.monotonic() > self._deadline:
            raise Refused(f"the bundle can't be read within {_PATIENCE_SECONDS:g} seconds")


class _TarStream:
    """A tar file that is read once, from its start to its end."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, expansion: _Expansion) -> None:
        self._stream = stream
        self._expansion = expansion
        self._position = 0
        self._last = b""

    def read(self, number: int) -> bytes:
        """For `tarfile`, which reads headers only."""
        if not 0 <= number <= _LONGEST_HEADER:
            raise Refused("a header of the tar file is longer than any name needs")
        self._last = self._take(number)
        return self._last

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise Refused("a header of the tar file leads backwards")
        while self._position < position:
            if not self._take(min(_CHUNK, position - self._position)):
                raise EOFError

    def content(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes."""
        with _told_as_damage():
            left = size
            while left > 0:
                chunk = self._take(min(_CHUNK, left))
                if not chunk:
                    raise EOFError
                left -= len(chunk)
                yield chunk

    def finish(self) -> None:
        """To be called when `tarfile` found no further header: there must be the mark of the end."""
        if self._last != bytes(_BLOCK):
            raise EOFError
        while rest := self._take(_CHUNK):
            if rest.count(0) != len(rest):
                raise Refused("something follows behind the end of the tar file")

    def _take(self, number: int) -> bytes:
        chunk = self._stream.read(number)
        self._position += len(chunk)
        self._expansion.take(len(chunk))
        return chunk


class _Sips:
    """A file that is read in small pieces only: `zipfile` reads a table of contents at one go."""

    def __init__(self, file: BinaryIO, largest: int) -> None:
        self._file = file
        self._largest = largest
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, number: int = -1) -> bytes:
        if number > self._largest:
            raise Refused(
                "the table of contents of the zip file is too long",
                "Leave data out of it; the operator sets the limit with JOBS_WORKFLOW_MAX_ENTRIES.",
            )
        return self._file.read(self._largest if number < 0 else number)


@contextmanager
def _told_as_damage() -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise Refused(
            f"the archive is damaged, or was cut off ({type(error).__name__})",
            "Pack the workflow's directory again, and send the file whole and as it is.",
        ) from error
