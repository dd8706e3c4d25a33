"""Gives a room a network of its own, which reaches the world and not the machine.

    rule ── device of the room ── slirp4netns (outside) ── connections of the worker's user

- On loopback a job finds only itself: neither Prefect nor the service nor the database.
- slirp4netns turns packets into connections that it makes itself, so it needs no privilege and changes
  nothing on the machine. It refuses the machine's loopback, has no IPv6, and answers names by asking the
  machine's own resolver.
- What else must stay out of reach has a route that leads nowhere. Routes belong to the user namespace
  of the room, in which a job has no power.

Without slirp4netns there can be a network that has loopback only.
"""

import ctypes
import fcntl
import os
import shutil
import socket
import struct
from ipaddress import IPv4Network
from pathlib import Path
from typing import NoReturn

HOST = "host"
"""The machine's network."""
OWN = "own"
"""The world, without the machine."""
NONE = "none"
"""Loopback only."""

RESOLVER = "198.18.0.3"
"""Answers names. Its addresses are those for measurements, which nobody else uses (RFC 2544)."""

_ADDRESSES = "198.18.0.0/24"
_PROGRAM = "slirp4netns"
_DEVICE = "tap0"
_LARGEST_PACKET = 65520
_MOST_STARTS = 100
_READY, _LEAVE = 3, 4
"""Descriptors of slirp4netns: it writes to one when it is ready, and ends when the other is closed."""

_SET_FLAGS = 0x8914  # SIOCSIFFLAGS
_UP_AND_RUNNING = 0x41  # IFF_UP | IFF_RUNNING
_ADD_ROUTE = 0x890B  # SIOCADDRT
_LEADS_NOWHERE = 0x0201  # RTF_UP | RTF_REJECT
_TO_ONE_HOST = 0x0004  # RTF_HOST


class _Route(ctypes.Structure):
    """`struct rtentry`."""

    _fields_ = (
        ("pad1", ctypes.c_ulong),
        ("destination", ctypes.c_ubyte * 16),
        ("gateway", ctypes.c_ubyte * 16),
        ("mask", ctypes.c_ubyte * 16),
        ("flags", ctypes.c_ushort),
        ("pad2", ctypes.c_short),
        ("pad3", ctypes.c_ulong),
        ("pad4", ctypes.c_void_p),
        ("metric", ctypes.c_short),
        ("device", ctypes.c_void_p),
        ("mtu", ctypes.c_ulong),
        ("window", ctypes.c_ulong),
        ("irtt", ctypes.c_ushort),
    )


class Uplink:
    """Connects a network with the world, until the process that made this object ends."""

    def __init__(self) -> None:
        """Raises `OSError` where there is no slirp4netns."""
        self._program = find_program()
        self._starts = 0
        self._leave, self._keep = os.pipe2(os.O_CLOEXEC)
        self.pid = 0
        """That of slirp4netns, when it has started."""

    def connect(self, process: int) -> None:
        """Connect the network of this process, again if slirp4netns has ended. Raises `OSError`."""
        self._starts += 1
        if self._starts > _MOST_STARTS:
            raise OSError(f"{_PROGRAM} ends again and again")
        ready, begun = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(self._program, process, begun, self._leave)
        os.close(begun)
        is_ready = os.read(ready, 1)
        os.close(ready)
        if not is_ready:
            raise OSError(f"{_PROGRAM} can't connect it; is there a /dev/net/tun?")

    def end(self) -> None:
        os.close(self._leave)
        os.close(self._keep)


def find_program() -> str:
    """The path of slirp4netns. Raises `OSError` without one."""
    program = shutil.which(_PROGRAM)
    if program is None:
        raise OSError(f"{_PROGRAM} is not installed")
    return program


def _become(program: str, pid: int, ready: int, leave: int) -> NoReturn:
    """Continue as slirp4netns, with no other descriptor open."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        # Above those that are to be replaced.
        ready, leave = (fcntl.fcntl(number, fcntl.F_DUPFD, _LEAVE + 1) for number in (ready, leave))
        for number, source in enumerate((null, null, null, ready, leave)):
            os.dup2(source, number)
        os.closerange(_LEAVE + 1, os.sysconf("SC_OPEN_MAX"))
        options = [f"--ready-fd={_READY}", f"--exit-fd={_LEAVE}", f"--cidr={_ADDRESSES}"]
        walls = ["--disable-host-loopback", "--enable-seccomp"]
        if os.geteuid() == 0:
            walls.append("--enable-sandbox")  # drops capabilities, and needs a root that the room has
        device = ["--configure", f"--mtu={_LARGEST_PACKET}", str(pid), _DEVICE]
        os.execve(program, [program, *options, *walls, *device], {"PATH": os.environ.get("PATH", os.defpath)})
    finally:
        os._exit(1)


def bring_up_loopback() -> None:
    """A network that was just made has loopback, but not yet up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP_AND_RUNNING))


def close_off(network: str) -> None:
    """Let nothing of this network of addresses be reached."""
    addresses = IPv4Network(network)
    route = _Route(flags=_LEADS_NOWHERE | (_TO_ONE_HOST if addresses.num_addresses == 1 else 0))
    route.destination[:] = _address(addresses.network_address.packed)
    route.mask[:] = _address(addresses.netmask.packed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _ADD_ROUTE, bytes(route))
        except FileExistsError:
            return


def addresses_of_machine() -> list[str]:
    """Addresses at which the machine itself answers, without those of loopback."""
    found, address = set(), ""
    for line in Path("/proc/net/fib_trie").read_text().splitlines():
        place, _, name = line.partition("|-- ")
        if name:
            address = name
        elif "/32 host LOCAL" in place and not address.startswith("127."):
            found.add(address)
    return sorted(found)


def _address(packed: bytes) -> bytes:
    """`struct sockaddr_in`."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, packed)
