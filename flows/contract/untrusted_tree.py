"""Checks and writes an untrusted tree of files.

Bundles and git repositories both pass through this module, when they are checked and when they are
written, so there is one set of rules:

- names are relative, without `..`, backslashes and control characters, and each name is unique;
- links lead to places inside the tree, also after following other links;
- there are only files, directories and links; their number and size are limited.

Links are created last, so that nothing is ever written through one.
"""

import os
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import assert_never

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_LONGEST_PATH_BYTES = 1024
_LONGEST_NAME_BYTES = 255
"""Linux's limit (NAME_MAX)."""
_DEEPEST = 64
_MAX_LINK_STEPS = 256
"""Steps when resolving a link, including those of the links that it leads through."""
_SHOWN_CHARACTERS = 120

_PACK_AGAIN = "Pack the workflow's directory again, with only files, directories, and links between them."

Parts = tuple[str, ...]


class TreeLimits(BaseSettings):
    """Size limits for workflows from bundles and git repositories."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    workflow_max_entries: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Maximum number of files, directories and links in a workflow.",
    )
    workflow_max_bytes: int = Field(
        default=1 << 30,
        ge=1 << 10,
        le=1 << 40,
        description="Maximum total size of a workflow's files, in bytes.",
    )


class Refused(Exception):
    """The submitted workflow is rejected; `resolution` says what the submitter can do."""

    def __init__(self, message: str, resolution: str = _PACK_AGAIN) -> None:
        super().__init__(message)
        self.resolution = resolution


@dataclass(frozen=True, slots=True)
class Directory:
    name: str


@dataclass(frozen=True, slots=True)
class File:
    name: str
    is_executable: bool
    content: Callable[[], Iterator[bytes]]
    """Read it before asking for the next entry."""


@dataclass(frozen=True, slots=True)
class Symlink:
    name: str
    target: str


@dataclass(frozen=True, slots=True)
class Hardlink:
    name: str
    target: str
    """The name of an earlier file."""


Entry = Directory | File | Symlink | Hardlink


@dataclass(frozen=True, slots=True)
class Contents:
    """What a tree contains."""

    files: int
    """Number of files, including links."""
    size_bytes: int


def check_tree(entries: Iterable[Entry], limits: TreeLimits) -> Contents:
    """Read everything without writing anything. Raises `Refused`."""
    inventory = _Inventory(limits)
    for entry in entries:
        inventory.admit(entry)
        if isinstance(entry, File):
            for _ in inventory.counted(entry):
                pass
    inventory.check_links()
    return inventory.contents()


def write_tree(
    entries: Iterable[Entry], directory: Path, limits: TreeLimits, left_out: Container[str] = ()
) -> Contents:
    """Write the tree to `directory`, which must not exist yet, without names in `left_out` at any depth.

    Raises `Refused`, and then leaves what it has written so far.
    """
    inventory = _Inventory(limits)
    directory.mkdir()
    links: list[tuple[Path, Symlink | Hardlink]] = []
    for entry in entries:
        parts = inventory.admit(entry)
        if any(part in left_out for part in parts):
            continue
        place = directory.joinpath(*parts)
        match entry:
            case Directory():
                place.mkdir(parents=True, exist_ok=True)
            case File():
                place.parent.mkdir(parents=True, exist_ok=True)
                _write_file(place, inventory.counted(entry), is_executable=entry.is_executable)
            case Symlink() | Hardlink():
                links.append((place, entry))
            case _:
                assert_never(entry)
    inventory.check_links()
    for place, link in links:
        place.parent.mkdir(parents=True, exist_ok=True)
        match link:
            case Symlink():
                place.symlink_to(link.target)
            case Hardlink():
                place.hardlink_to(directory.joinpath(*parts_of(link.target)))
    return inventory.contents()


def parts_of(name: str) -> Parts:
    """The components of a relative path; empty for the tree itself. Raises `Refused`."""
    if name.startswith("/"):
        raise Refused(f"the name {shown(name)} is absolute")
    if "\\" in name:
        raise Refused(f"the name {shown(name)} contains a backslash, which is a separator on other systems")
    if not name.isprintable():
        raise Refused(f"the name {shown(name)} is not printable UTF-8")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Refused(f"the name {shown(name)} contains '..'")
    longest = max((len(part.encode()) for part in parts), default=0)
    if longest > _LONGEST_NAME_BYTES or len(name.encode()) > _LONGEST_PATH_BYTES or len(parts) > _DEEPEST:
        raise Refused(
            f"the name {shown(name)} is too long or nested too deeply",
            f"Use names of at most {_LONGEST_NAME_BYTES} bytes, and paths of at most "
            f"{_LONGEST_PATH_BYTES} bytes and {_DEEPEST} levels.",
        )
    return parts


def shown(name: str) -> str:
    """Untrusted text made safe for a message: one line, printable, and short."""
    cut = name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"
    return ascii(cut) if not cut.isprintable() else repr(cut)


class _Kind(Enum):
    DIRECTORY = auto()
    FILE = auto()
    SYMLINK = auto()


class _Inventory:
    """The entries of a tree so far; rejects invalid ones."""

    def __init__(self, limits: TreeLimits) -> None:
        self._limits = limits
        self._kinds: dict[Parts, _Kind] = {}
        self._targets: dict[Parts, Parts] = {}
        self._size_bytes = 0

    def admit(self, entry: Entry) -> Parts:
        """Check the entry; its path, as components."""
        parts = parts_of(entry.name)
        match entry:
            case Directory():
                self._admit_directory(parts, entry.name)
            case File():
                self._admit_new(parts, entry.name, _Kind.FILE)
            case Symlink():
                self._admit_new(parts, entry.name, _Kind.SYMLINK)
                self._targets[parts] = _target_of(entry)
            case Hardlink():
                if self._kinds.get(parts_of(entry.target)) is not _Kind.FILE:
                    raise Refused(
                        f"the hard link {shown(entry.name)} points to {shown(entry.target)}, "
                        "which is not an earlier file"
                    )
                self._admit_new(parts, entry.name, _Kind.FILE)
            case _:
                assert_never(entry)
        return parts

    def counted(self, file: File) -> Iterator[bytes]:
        """The content of the file, counted against the size limit."""
        for chunk in file.content():
            self._size_bytes += len(chunk)
            if self._size_bytes > self._limits.workflow_max_bytes:
                raise Refused(
                    f"the workflow's files have more than {self._limits.workflow_max_bytes:,} bytes",
                    "Remove data files from it; the operator sets the limit with JOBS_WORKFLOW_MAX_BYTES.",
                )
            yield chunk

    def check_links(self) -> None:
        """Check where links lead. Call it when all entries are known: links can lead through others."""
        for parts in self._targets:
            self._follow(parts)

    def contents(self) -> Contents:
        files = sum(kind is not _Kind.DIRECTORY for kind in self._kinds.values())
        return Contents(files=files, size_bytes=self._size_bytes)

    def _admit_directory(self, parts: Parts, name: str) -> None:
        for depth in range(1, len(parts) + 1):
            above = parts[:depth]
            kind = self._kinds.get(above)
            if kind is None:
                self._add(above, _Kind.DIRECTORY)
            elif kind is not _Kind.DIRECTORY:
                raise Refused(f"{shown('/'.join(above))} is not a directory, but contains {shown(name)}")

    def _admit_new(self, parts: Parts, name: str, kind: _Kind) -> None:
        if parts in self._kinds or not parts:
            raise Refused(f"the name {shown(name)} is used twice")
        self._admit_directory(parts[:-1], name)
        self._add(parts, kind)

    def _add(self, parts: Parts, kind: _Kind) -> None:
        self._kinds[parts] = kind
        if len(self._kinds) > self._limits.workflow_max_entries:
            raise Refused(
                f"the workflow has more than {self._limits.workflow_max_entries:,} files and directories",
                "Remove data files from it; the operator sets the limit with JOBS_WORKFLOW_MAX_ENTRIES.",
            )

    def _follow(self, link: Parts) -> None:
        """Resolve the link as the kernel would. Raises `Refused` if it leaves the tree."""
        position = list(link[:-1])
        ahead = list(reversed(self._targets[link]))
        for _ in range(_MAX_LINK_STEPS):
            if not ahead:
                return
            step = ahead.pop()
            if step != "..":
                position.append(step)
                through = self._targets.get(tuple(position))
                if through is not None:  # empty for a link to `.`
                    position.pop()
                    ahead.extend(reversed(through))
            elif position:
                position.pop()
            else:
                raise Refused(f"the link {shown('/'.join(link))} points outside the workflow's directory")
        raise Refused(f"the link {shown('/'.join(link))} is part of a loop, or leads through too many links")


def _target_of(link: Symlink) -> Parts:
    if link.target.startswith("/") or "\\" in link.target or not link.target.isprintable():
        raise Refused(
            f"the link {shown(link.name)} points to {shown(link.target)}, outside the workflow's directory"
        )
    if len(link.target.encode()) > _LONGEST_PATH_BYTES or not link.target:
        raise Refused(f"the target of the link {shown(link.name)} is empty or too long")
    return tuple(part for part in link.target.split("/") if part not in ("", "."))


def _write_file(place: Path, content: Iterator[bytes], *, is_executable: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(place, flags, 0o777 if is_executable else 0o666), "wb") as file:
        for chunk in content:
            file.write(chunk)
