"""Calls of Linux that make namespaces, mounts and restrictions. Every function may raise `OSError`.

Python has none of them: `os.unshare` is in 3.12 and newer only. The numbers are those of the kernel's
headers, which never change; `syscall` numbers from 424 on are the same on every architecture.
"""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

NEW_USER = 0x10000000
NEW_MOUNTS = 0x00020000
NEW_PIDS = 0x20000000
NEW_IPC = 0x08000000
NEW_NETWORK = 0x40000000

BIND = 0x1000
RECURSIVE = 0x4000
PRIVATE = 0x40000
NO_SETUID = 0x2
NO_DEVICES = 0x4
NO_EXECUTION = 0x8

_DETACH = 0x2  # MNT_DETACH
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_ATTR_READ_ONLY = 0x1  # MOUNT_ATTR_RDONLY
_ATTR_NO_SETUID = 0x2  # MOUNT_ATTR_NOSUID
_MOUNT_SETATTR = 442
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_VERSION = 1
_SCOPES_SINCE = 6
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 0x3
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3

_ALL_NUMBERS = 0xFFFFFFFF
"""How many users the first user namespace of a machine has."""


class _MountAttributes(ctypes.Structure):
    """`struct mount_attr`."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    )


class _LandlockRules(ctypes.Structure):
    """`struct landlock_ruleset_attr`."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


def unshare(kinds: int) -> None:
    """Move this process (its children for `NEW_PIDS`) to new namespaces. It must have one thread."""
    _call("unshare", kinds)


def mount(
    source: str | None, target: str, kind: str | None = None, flags: int = 0, options: str = ""
) -> None:
    _call("mount", _bytes(source), os.fsencode(target), _bytes(kind), ctypes.c_ulong(flags), options.encode())


def make_read_only(target: str, *, recursive: bool = False) -> None:
    """Make a mount read-only, with all mounts below it if `recursive`. Since Linux 5.12."""
    attributes = _MountAttributes(_ATTR_READ_ONLY | _ATTR_NO_SETUID, 0, 0, 0)
    _system_call(
        _MOUNT_SETATTR,
        ctypes.c_long(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_long(_AT_RECURSIVE if recursive else 0),
        ctypes.byref(attributes),
        ctypes.c_long(ctypes.sizeof(attributes)),
    )


def change_root(new: str, old: str) -> None:
    """Make the mount `new` the root; the root before is then at `old`, a directory in it."""
    _call("pivot_root", os.fsencode(new), os.fsencode(old))


def detach(target: str) -> None:
    """Unmount `target` and everything below it."""
    _call("umount2", os.fsencode(target), _DETACH)


def write_identity_maps(pid: int) -> None:
    """Give a process in a new user namespace the users and groups of this process, each as itself.

    Root maps all users that it has itself, so that programs can change owners. Others may only map
    themselves; their other groups still count for what they may read.
    """
    process = Path("/proc", str(pid))
    if os.geteuid() == 0:
        try:
            for name in ("uid_map", "gid_map"):
                (process / name).write_text(_own_map(name))
        except PermissionError:
            pass  # root without the capabilities, as in a container
        else:
            return
    (process / "setgroups").write_text("deny")
    (process / "uid_map").write_text(f"{os.geteuid()} {os.geteuid()} 1\n")
    (process / "gid_map").write_text(f"{os.getegid()} {os.getegid()} 1\n")


def _own_map(name: str) -> str:
    """All that this process has mapped itself, but the last number: by that, programs see a namespace."""
    lines = (line.split() for line in Path("/proc/self", name).read_text().splitlines())
    return "".join(f"{first} {first} {min(int(count), _ALL_NUMBERS - 1)}\n" for first, _, count in lines)


def forbid_control_group_namespaces() -> None:
    """Let nothing in this user namespace mount control groups.

    Their files belong to users: whoever owns them, as root does, could end what is in them.
    """
    Path("/proc/sys/user/max_cgroup_namespaces").write_text("0")


def forbid_new_privileges() -> None:
    """Programs that are set-user-ID no longer change the user."""
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def drop_capabilities() -> None:
    _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    _call("capset", header, (ctypes.c_uint32 * 6)())


def restrict_signals_and_abstract_sockets() -> bool:
    """Forbid signals to, and abstract sockets of, processes outside of this one and its children.

    With Landlock, which also forbids to trace them. False if the kernel is older than 6.12 or lacks it.
    """
    try:
        version = _system_call(
            _LANDLOCK_CREATE_RULESET, None, ctypes.c_long(0), ctypes.c_long(_LANDLOCK_VERSION)
        )
    except OSError:
        return False
    if version < _SCOPES_SINCE:
        return False
    # No rule about files: with one, the kernel would forbid all mounts, which containers need.
    rules = _LandlockRules(0, 0, _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS)
    descriptor = _system_call(
        _LANDLOCK_CREATE_RULESET, ctypes.byref(rules), ctypes.c_long(ctypes.sizeof(rules)), ctypes.c_long(0)
    )
    try:
        _system_call(_LANDLOCK_RESTRICT_SELF, ctypes.c_long(descriptor), ctypes.c_long(0))
    finally:
        os.close(descriptor)
    return True


@cache
def _libc() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise OSError("the system is not Linux")
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> int:
    result: int = getattr(_libc(), name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _system_call(number: int, *arguments: Any) -> int:
    return _call("syscall", ctypes.c_long(number), *arguments)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
