"""Makes the file system of a room: an empty one, to which what the job may see is added.

The root before is put aside while directories of it are bound to the same places, and then dropped.
Mounts are made from the outside to the inside, so that a directory can be hidden and one inside of it
be visible.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from flows.snakemake_process.namespaces import (
    BIND,
    NO_DEVICES,
    NO_EXECUTION,
    NO_SETUID,
    PRIVATE,
    RECURSIVE,
    change_root,
    detach,
    make_read_only,
    mount,
)

SYSTEM = (
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/opt", "/nix", "/sys"),
    # What some programs of /usr need: LaTeX, fonts, apptainer.
    *("/var/lib/texmf", "/var/cache/fontconfig", "/var/lib/apptainer"),
    # May lead out of /etc.
    *("/etc/resolv.conf", "/etc/hosts", "/etc/localtime"),
)
"""Directories and files of the system that every job can read."""

SECRET = (
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/sudoers.d",
)
"""Parts of them that a worker that runs as root could read."""

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_MORE_DEVICES = ("fuse", "dri", "kfd", "infiniband")
"""For containers, graphics cards and fast networks, where the machine has them."""
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_KERNEL = ("sys", "sysrq-trigger", "irq", "bus", "fs")
"""Files of /proc that change the kernel, and that root may write without any capability."""

_BASE = "/tmp"
_OLD = "/.old"
_EMPTY = "/.hidden"
"""What files are hidden by."""


class _Access(IntEnum):
    """In the order in which mounts at one place are made."""

    HIDDEN = 0
    READABLE = 1
    PRIVATE = 2
    WRITABLE = 3


class _Mount(NamedTuple):
    place: str
    access: _Access
    source: str


def make(
    readable: Iterable[str],
    writable: Iterable[str],
    hidden: Iterable[str],
    private: Mapping[str, str],
    *,
    guard_kernel: bool,
) -> None:
    """Replace the file system of this process, which must be the first one of its PID namespace.

    `private` has directories by the place where the job finds them. What does not exist is left out.
    """
    wanted = [
        *_mounts((*SYSTEM, *readable), _Access.READABLE),
        *_mounts((*SECRET, *hidden), _Access.HIDDEN),
        *_mounts(writable, _Access.WRITABLE),
        *(_Mount(place, _Access.PRIVATE, source) for place, source in private.items()),
    ]
    links = [path for path in (*SYSTEM, *readable, *writable) if os.path.realpath(path) != path]
    targets = {path: os.path.realpath(path) for path in links}
    mount(None, "/", flags=PRIVATE | RECURSIVE)
    mount("tmpfs", _BASE, "tmpfs", NO_SETUID | NO_DEVICES, "mode=755,size=16m")
    os.mkdir(_BASE + _OLD)
    os.chdir(_BASE)
    change_root(".", _OLD[1:])
    os.chdir("/")
    _make_proc(guard_kernel=guard_kernel)
    _make_devices()
    os.close(os.open(_EMPTY, os.O_CREAT, 0o444))
    covers = [_add(each) for each in _without_doubles(wanted)]
    for path, target in targets.items():
        _link(path, target)
    detach(_OLD)
    os.rmdir(_OLD)
    for cover in (*filter(None, covers), "/"):
        make_read_only(cover)


def _mounts(paths: Iterable[str], access: _Access) -> Iterator[_Mount]:
    for path in paths:
        real = os.path.realpath(path)
        if real != "/" and os.path.exists(real):
            yield _Mount(real, access, real)


def _without_doubles(mounts: Iterable[_Mount]) -> Iterator[_Mount]:
    """From the outside to the inside, without those that change nothing."""
    done: dict[str, _Access] = {}
    for each in sorted(mounts, key=lambda each: (len(Path(each.place).parts), each.access)):
        above = next(
            (str(path) for path in (Path(each.place), *Path(each.place).parents) if str(path) in done), None
        )
        if above is None or done[above] is not each.access or each.access is _Access.PRIVATE:
            done[each.place] = each.access
            yield each


def _add(wanted: _Mount) -> str | None:
    """Mount it. Returns the place if it is an empty directory to which nothing may be added in the end."""
    place, access, source = wanted
    if access is _Access.HIDDEN:
        return _hide(place)
    _make_place(place, is_directory=os.path.isdir(_OLD + source))
    mount(_OLD + source, place, flags=BIND | RECURSIVE)
    if access is _Access.READABLE:
        make_read_only(place, recursive=True)
    return None


def _hide(place: str) -> str | None:
    if not os.path.lexists(place):
        return None
    if not os.path.isdir(place):
        mount(_EMPTY, place, flags=BIND)
        make_read_only(place)
        return None
    mount("tmpfs", place, "tmpfs", NO_SETUID | NO_DEVICES, "mode=755,size=16m")
    return place


def _make_place(place: str, *, is_directory: bool) -> None:
    if os.path.lexists(place):
        return
    os.makedirs(place if is_directory else os.path.dirname(place), exist_ok=True)
    if not is_directory:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))


def _make_proc(*, guard_kernel: bool) -> None:
    os.mkdir("/proc")
    mount("proc", "/proc", "proc", NO_SETUID | NO_DEVICES | NO_EXECUTION)
    for name in _KERNEL if guard_kernel else ():
        if os.path.exists(place := f"/proc/{name}"):
            mount(place, place, flags=BIND | RECURSIVE)
            make_read_only(place, recursive=True)


def _make_devices() -> None:
    os.mkdir("/dev")
    cards = (entry.name for entry in os.scandir(_OLD + "/dev") if entry.name.startswith("nvidia"))
    for name in (*_DEVICES, *_MORE_DEVICES, *cards):
        if os.path.exists(source := f"{_OLD}/dev/{name}"):
            _make_place(f"/dev/{name}", is_directory=os.path.isdir(source))
            mount(source, f"/dev/{name}", flags=BIND | RECURSIVE)
    for name, kind, options in (
        ("pts", "devpts", "newinstance,ptmxmode=0666"),
        ("shm", "tmpfs", "mode=1777"),
    ):
        os.mkdir(f"/dev/{name}")
        mount(
            kind,
            f"/dev/{name}",
            kind,
            NO_SETUID | NO_EXECUTION | (NO_DEVICES if kind == "tmpfs" else 0),
            options,
        )
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")


def _link(path: str, target: str) -> None:
    """Let `path` lead to where its target is, if it does not yet."""
    with suppress(OSError):  # its directory is a read-only one that has it, or shall not have it
        if not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(target, path)
