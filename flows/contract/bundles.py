"""Bundles: the directory of a workflow as one tar, gzipped tar or zip file.

`check_bundle` runs before a bundle is accepted, `unpack_bundle` when a job is staged; both use the
same code. `flows.contract.untrusted_tree` decides what a bundle may contain. The standard library's
readers trust the lengths in headers, and `tarfile` mistakes damage in the middle for the end. So they
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
"""Bytes of a tar header, extensions included; the longest allowed path is a sixteenth of it."""
_TABLE_BYTES_PER_ENTRY = 320
"""In the central directory of a zip file: 46, the name, and what archivers add."""
_RATIO_COUNTS_FROM = 1 << 20
"""Below this size every ratio is harmless; the padding of a small tar file makes its ratio large."""
_LONGEST_LINK = 1024
_TIMEOUT_SECONDS = 120.0
"""Stops a bundle that was crafted to be slow; a gigabyte takes a tenth of this."""

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
"""What the readers raise for invalid bytes."""


class BundleLimits(TreeLimits):
    """How large a bundle may be, packed and unpacked."""

    bundle_max_bytes: int = Field(
        default=1 << 28, ge=1 << 10, le=1 << 36, description="Maximum size of a bundle, in bytes."
    )
    bundle_max_ratio: int = Field(
        default=100, ge=2, le=10_000, description="Maximum ratio of a bundle's unpacked size to its own size."
    )


class NotAnArchive(Refused):
    """The bytes are not an archive in a supported format."""


def check_bundle(archive: BinaryIO, limits: BundleLimits) -> Contents:
    """Read the whole archive without writing anything. Raises `Refused`."""
    contents = check_tree(_entries(archive, limits), limits)
    if not contents.files:
        raise Refused("the bundle contains no files", "Pack the directory that contains the Snakefile.")
    return contents


def unpack_bundle(
    archive: BinaryIO,
    directory: Path,
    limits: BundleLimits,
    subdirectory: str = ".",
    left_out: Container[str] = (),
) -> Contents:
    """Write the content of `subdirectory` to `directory`, which must not exist yet. Raises `Refused`."""
    entries = _below(subdirectory, _entries(archive, limits))
    return write_tree(entries, directory, limits, left_out)


def _entries(archive: BinaryIO, limits: BundleLimits) -> Iterator[Entry]:
    size = archive.seek(0, io.SEEK_END)
    archive.seek(0)
    start = archive.read(_BLOCK)
    archive.seek(0)
    expansion = _Expansion(size, limits)
    with _translating_read_errors():
        if start.startswith(b"PK"):
            yield from _zip_entries(archive, expansion, limits)
        elif start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=archive, mode="rb") as inflated:
                yield from _tar_entries(_TarStream(inflated, expansion))
        elif start[257:262] == b"ustar":
            yield from _tar_entries(_TarStream(archive, expansion))
        else:
            raise NotAnArchive(
                "the bundle is not a tar, gzipped tar or zip file",
                "Pack the workflow's directory with `tar -czf` or `zip -r`, and send that file unchanged.",
            )


def _below(subdirectory: str, entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries below a directory of the tree, with names relative to it."""
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
                    raise Refused(f"the hard link {shown(entry.name)} points outside {shown(subdirectory)}")
                yield Hardlink(name, "/".join(target[len(above) :]))
    if not is_there:
        raise Refused(
            f"the bundle has no directory {shown(subdirectory)}",
            "Set `workflow.subdir` to the directory inside the bundle that contains the workflow.",
        )


def _tar_entries(stream: "_TarStream") -> Iterator[Entry]:
    # "r:" and a forward-only stream: "r|" would read as much as a header claims before it can be rejected.
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
    raise Refused(f"{shown(member.name)} is not a regular file: devices, pipes and sparse files are rejected")


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
        with _translating_read_errors(), opened.open(info) as file:
            while chunk := file.read(_CHUNK):
                expansion.take(len(chunk))
                yield chunk

    # The upper half is the mode from `stat`, if the archiver knew it.
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        if info.file_size > _LONGEST_LINK:
            raise Refused(f"the target of the link {shown(name)} is too long")
        return Symlink(name, b"".join(content()).decode())
    if name.endswith("/") and kind in (0, stat.S_IFDIR) and not info.file_size:
        return Directory(name)
    if not name.endswith("/") and kind in (0, stat.S_IFREG):
        return File(name, bool(mode & stat.S_IXUSR), content)
    raise Refused(
        f"{shown(name)} is not a regular file: its name and type do not match, or it is a device or a pipe"
    )


class _Expansion:
    """Limits how much an archive may unpack to, and how long that may take."""

    def __init__(self, size: int, limits: BundleLimits) -> None:
        self._ratio = limits.bundle_max_ratio
        self._left = max(_RATIO_COUNTS_FROM, size * limits.bundle_max_ratio)
        self._deadline = time.monotonic() + _TIMEOUT_SECONDS

    def take(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise Refused(
                f"the bundle unpacks to more than {self._ratio} times its size",
                "Remove files of highly repetitive content; "
                "the operator sets the limit with JOBS_BUNDLE_MAX_RATIO.",
            )
        if time.monotonic() > self._deadline:
            raise Refused(f"reading the bundle takes longer than {_TIMEOUT_SECONDS:g} seconds")


class _TarStream:
    """A tar file that is read once, from start to end."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, expansion: _Expansion) -> None:
        self._stream = stream
        self._expansion = expansion
        self._position = 0
        self._last = b""

    def read(self, number: int) -> bytes:
        """For `tarfile`, which reads only headers from here."""
        if not 0 <= number <= _LONGEST_HEADER:
            raise Refused("a header of the tar file is too long")
        self._last = self._take(number)
        return self._last

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise Refused("a header of the tar file points backwards")
        while self._position < position:
            if not self._take(min(_CHUNK, position - self._position)):
                raise EOFError

    def content(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes."""
        with _translating_read_errors():
            left = size
            while left > 0:
                chunk = self._take(min(_CHUNK, left))
                if not chunk:
                    raise EOFError
                left -= len(chunk)
                yield chunk

    def finish(self) -> None:
        """Check that the end-of-archive marker is there. Call it when `tarfile` finds no further header."""
        if self._last != bytes(_BLOCK):
            raise EOFError
        while rest := self._take(_CHUNK):
            if rest.count(0) != len(rest):
                raise Refused("the tar file has data after its end")

    def _take(self, number: int) -> bytes:
        chunk = self._stream.read(number)
        self._position += len(chunk)
        self._expansion.take(len(chunk))
        return chunk


class _Sips:
    """A file that is only read in small pieces: `zipfile` reads a central directory in one go."""

    def __init__(self, file: BinaryIO, largest: int) -> None:
        self._file = file
        self._largest = largest
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, number: int = -1) -> bytes:
        if number > self._largest:
            raise Refused(
                "the central directory of the zip file is too large",
                "Remove data files from it; the operator sets the limit with JOBS_WORKFLOW_MAX_ENTRIES.",
            )
        return self._file.read(self._largest if number < 0 else number)


@contextmanager
def _translating_read_errors() -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise Refused(
            f"the archive is damaged or truncated ({type(error).__name__})",
            "Pack the workflow's directory again, and send the whole file unchanged.",
        ) from error
