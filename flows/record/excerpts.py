"""Parts of the files that rules write, as text that Prefect can store: as much as people read.

Pieces end after a line, or at least after a character. A missing file has no text.
"""

import codecs
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flows.contract.job_files import open_file

CHUNK_BYTES = 32 * 1024

EndOf = Callable[[bytes], int]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of the file that is not shown."""

    size: int


def tail(path: Path, lines: int, within: Path | None = None) -> str:
    """The last lines; links may lead to files in `within`."""
    try:
        with open_file(path, within) as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - CHUNK_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def whole_lines(path: Path, position: int, end_of: EndOf = len) -> bytes:
    """The next lines of a file that grows, at most `CHUNK_BYTES`; a part of one only if it is longer.

    `end_of` says how much of a part can be shown.
    """
    try:
        with open_file(path) as stream:
            stream.seek(position)
            chunk = stream.read(CHUNK_BYTES)
    except OSError:
        return b""
    lines = chunk[: chunk.rfind(b"\n") + 1]
    return lines or (_part_of_line(chunk, end_of) if len(chunk) == CHUNK_BYTES else b"")


def excerpt(
    path: Path,
    head: int,
    tail: int,
    *,
    position: int = 0,
    within: Path | None = None,
    end_of: EndOf = len,
) -> Iterator[str | LeftOut]:
    """The text from `position` on; of a long one, its first `head` and last `tail` bytes, or a bit less."""
    try:
        with open_file(path, within) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size - position <= head + tail:
                yield from _pieces(stream, position, size, end_of)
                return
            first, last = position + _line_end(stream, position, head), size - _line_start(stream, size, tail)
            yield from _pieces(stream, position, first, end_of)
            yield LeftOut(last - first)
            yield from _pieces(stream, last, size, end_of)
    except OSError:
        return


def text_of(chunk: bytes) -> str:
    """Text without its last newline. PostgreSQL stores no NUL."""
    return chunk.decode("utf-8", "replace").replace("\x00", "\ufffd").removesuffix("\n")


def _pieces(stream: BinaryIO, begin: int, end: int, end_of: EndOf) -> Iterator[str]:
    while begin < end:
        stream.seek(begin)
        chunk = stream.read(min(CHUNK_BYTES, end - begin))
        if not chunk:
            return  # it has become shorter
        if begin + len(chunk) < end:
            chunk = chunk[: chunk.rfind(b"\n") + 1] or _part_of_line(chunk, end_of)
        begin += len(chunk)
        if text := text_of(chunk):
            yield text


def _line_end(stream: BinaryIO, position: int, limit: int) -> int:
    """The size of the whole lines in the `limit` bytes at `position`."""
    stream.seek(position)
    chunk = stream.read(limit)
    return chunk.rfind(b"\n") + 1 or len(_whole_characters(chunk))


def _line_start(stream: BinaryIO, end: int, limit: int) -> int:
    """The size of the whole lines in the `limit` bytes before `end`."""
    stream.seek(end - limit)
    chunk = stream.read(limit)
    newline = chunk.find(b"\n", 0, -1)
    return limit if newline < 0 else limit - newline - 1


def _part_of_line(chunk: bytes, end_of: EndOf) -> bytes:
    return _whole_characters(chunk[: end_of(chunk) or len(chunk)])


def _whole_characters(chunk: bytes) -> bytes:
    """Without the bytes at the end that belong to an incomplete character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(chunk)
    return chunk[: len(chunk) - len(decoder.getstate()[0])]
