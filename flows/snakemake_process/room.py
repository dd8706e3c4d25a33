"""Moves a job into a room of its own, where it finds nothing of other jobs and of the service.

    supervisor ──fork──> warden ──fork──> first process of the room (the supervisor goes on here)
     (outside)    (user, PID, IPC, network)    (mounts)

- The kernel ends every process of the room when its first process ends, however that happens: also
  those that have left their session. When the outer supervisor ends, the warden ends the first process.
- The processes outside wait until all of the room are gone, whichever of them is killed. What they keep
  open until then, such as the lock of a directory, shows that something of the job may still run.
- A process of the room sees, signals and traces no process outside.
- Its file system is a new one (`flows.snakemake_process.mounts`), and so is its network, unless it is to have
  that of the machine (`flows.snakemake_process.network`).
- What makes the room can't be undone from inside: an ordinary user keeps no capability, and root gets
  those of one more user namespace, for which the kernel locks the mounts. Containers that rules start
  work in namespaces of their own.

It needs Linux 5.12, user namespaces, and a /proc without masked parts.
"""

import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from flows.snakemake_process import mounts, namespaces, network
from flows.snakemake_process.control_groups import ControlGroup
from flows.snakemake_process.prctl import die_with_parent

_MAP = b"m"
_CONNECT = b"c"
_DONE = b"d"
_FAILED = b"f"


@dataclass(frozen=True, slots=True)
class Room:
    """What a job finds in its room beside the system's directories, all as absolute paths."""

    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    """What others can be inside of: the service's own directory, files with credentials."""
    private: Mapping[str, str] = field(default_factory=dict)
    """Directories of the system, such as /tmp, and what the job gets in their place."""
    network: str = network.HOST
    """What it reaches: one of the words of `flows.snakemake_process.network`."""
    closed_networks: tuple[str, ...] = ()
    """Addresses that a network of its own does not reach, beside those of the machine."""
    private_with_network: Mapping[str, str] = field(default_factory=dict)
    """More of `private` for a job with a network of its own."""
    is_required: bool = False
    """Whether the job fails where the kernel can't make the room."""


class NoRoom(Exception):
    """The kernel can't make the room; the message says why."""


def enter(room: Room, group: ControlGroup | None = None) -> None:
    """Continue in the room, as its first process. The process that called this waits for the room's end.

    All processes of the room are in the control group, if there is one, which is removed with the room.
    Raises `NoRoom` in the process that called this.
    """
    uplink = _uplink_of(room)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        if uplink is not None:
            uplink.end()  # its own copy: the other one is for the process outside
        if group is not None:
            group.enter()
        _become_warden(room, theirs)
        return
    theirs.close()
    problem = _serve(pid, ours, uplink)
    if problem is not None:
        os.waitpid(pid, 0)
        if uplink is not None:
            uplink.end()
        if group is not None:
            group.remove()
        raise NoRoom(problem)
    _wait_for_warden(pid, uplink, group)


def _uplink_of(room: Room) -> network.Uplink | None:
    try:
        return network.Uplink() if room.network == network.OWN else None
    except OSError as error:
        raise NoRoom(_reason(error)) from error


def _become_warden(room: Room, outside: socket.socket) -> None:
    """Make the namespaces, and fork the first process, in which this returns."""
    try:
        die_with_parent(signal.SIGKILL)
        machine = network.addresses_of_machine() if room.network == network.OWN else []
        namespaces.unshare(
            namespaces.NEW_USER
            | namespaces.NEW_PIDS
            | namespaces.NEW_IPC
            | (0 if room.network == network.HOST else namespaces.NEW_NETWORK)
        )
        die_with_parent(signal.SIGKILL)  # the kernel may forget it when capabilities change
        _ask(outside, _MAP)
        _make_network(room, outside, machine)
        ours, theirs = socket.socketpair()
        pid = os.fork()
    except OSError as error:
        _fail(outside, _reason(error))
    if pid == 0:
        outside.close()
        ours.close()
        _move_in(room, theirs)
        return
    theirs.close()
    problem = _serve(pid, ours)
    if problem is not None:
        _fail(outside, problem)
    try:
        _ask(outside, _DONE)
    except OSError:
        os._exit(1)  # the supervisor outside is gone
    _wait_for_room(pid, outside)


def _make_network(room: Room, outside: socket.socket, addresses_of_machine: list[str]) -> None:
    if room.network == network.HOST:
        return
    network.bring_up_loopback()
    if room.network == network.OWN:
        for addresses in (*room.closed_networks, *addresses_of_machine):
            network.close_off(addresses)
        _ask(outside, _CONNECT)


def _move_in(room: Room, outside: socket.socket) -> None:
    """Make the file system, and give up what could undo it."""
    try:
        die_with_parent(signal.SIGKILL)
        namespaces.unshare(namespaces.NEW_MOUNTS)
        namespaces.forbid_control_group_namespaces()
        is_root = os.geteuid() == 0
        private = dict(room.private)
        if room.network != network.HOST:
            private |= room.private_with_network
        mounts.make(room.readable, room.writable, room.hidden, private, guard_kernel=is_root)
        namespaces.forbid_new_privileges()
        namespaces.restrict_signals_and_abstract_sockets()
        if is_root:
            namespaces.unshare(namespaces.NEW_USER | namespaces.NEW_MOUNTS)
            _ask(outside, _MAP)
        else:
            namespaces.drop_capabilities()
        die_with_parent(signal.SIGKILL)
        _ask(outside, _DONE)
        outside.close()
    except OSError as error:
        _fail(outside, _reason(error))


def _serve(pid: int, child: socket.socket, uplink: network.Uplink | None = None) -> str | None:
    """Do for the child what only its parent may; why it failed, or None when it is done.

    `child` stays open: its other end sees when this process ends.
    """
    while True:
        request = child.recv(4096)
        if request in (_MAP, _CONNECT):
            try:
                if request == _MAP:
                    namespaces.write_identity_maps(pid)
                elif uplink is not None:
                    uplink.connect(pid)
            except OSError as error:
                os.kill(pid, signal.SIGKILL)
                return _reason(error)
        elif request == _DONE:
            child.sendall(_DONE)
            return None
        else:
            return request.removeprefix(_FAILED).decode(errors="replace") or "its first process ended"
        child.sendall(request)


def _ask(parent: socket.socket, request: bytes) -> None:
    parent.sendall(request)
    if parent.recv(len(request)) != request:
        os._exit(1)  # the parent is gone


def _reason(error: OSError) -> str:
    return ": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error)


def _fail(parent: socket.socket, problem: str) -> NoReturn:
    parent.sendall(_FAILED + problem.encode())
    os._exit(1)


def _wait_for_warden(pid: int, uplink: network.Uplink | None, group: ControlGroup | None) -> NoReturn:
    """Wait, as the outer supervisor, until all of the room are gone."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            break
        if uplink is not None and ended == uplink.pid:
            with suppress(OSError):  # the job goes on without it, and its connections fail
                uplink.connect(pid)
    if status:  # it was killed, so its child, which ends with it, is one of this process now
        if uplink is not None:
            uplink.end()
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
    if group is not None:
        group.remove()
    os._exit(0)


def _wait_for_room(pid: int, outside: socket.socket) -> NoReturn:
    """Wait, as the warden, until all of the room are gone; end them if the outer supervisor is gone."""
    die_with_parent(0)
    poll = select.poll()
    for descriptor in (os.pidfd_open(pid), outside.fileno()):
        poll.register(descriptor, select.POLLIN)
    poll.poll()
    if not _is_open(outside):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # the kernel has it wait for all others of the room
    os._exit(0)


def _is_open(other_end: socket.socket) -> bool:
    try:
        return bool(other_end.recv(1, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False


def main(kind_of_network: str) -> None:
    """Try it out, and print what is missing, a line each.

    `python -m flows.snakemake_process.room NETWORK`
    """
    try:
        enter(Room(network=kind_of_network))
    except NoRoom as problem:
        print(problem)  # noqa: T201 - read by `flows.worker.isolation_probe`
        return
    if not namespaces.restrict_signals_and_abstract_sockets():
        print("Landlock")  # noqa: T201 - as above


if __name__ == "__main__":
    main(sys.argv[1])
