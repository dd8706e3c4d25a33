"""Lets a job attack what is around it: `python -m tests.flows.intruding DIRECTORY`, as any user."""

import fcntl
import json
import os
import socket
import struct
import sys
from ipaddress import IPv4Interface
from pathlib import Path
from uuid import uuid4

from flows.contract.data_roots import EVERY_GROUP
from flows.contract.environments import SoftwareSettings
from flows.engines.snakemake import SnakemakeEngine
from flows.engines.software import Software
from flows.snakemake_process import namespaces, network
from flows.snakemake_process.events import Message
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace
from tests.flows.executions import HERE, Run, staged
from tests.support import WORKFLOWS

SIOCSIFADDR, SIOCSIFNETMASK = 0x8916, 0x891C
# Whole networks at loopback: the kernel takes all addresses of them for its own.
MACHINE, METADATA, WORLD = "10.9.8.7/32", "169.254.1.1/16", "203.0.113.1/24"
TOKENS, DATA, LOG = "tokens.json", "data/reads.txt", "worker.log"


def intrude(place: Path) -> dict[str, bool]:
    """Which attacks of the workflow `intruder` succeed; `place` must be empty."""
    targets = _prepare(place)
    settings = WorkspaceSettings(
        home=place / "home",
        workflow_roots=(WORKFLOWS, place),
        data_roots={EVERY_GROUP: (place / "data",)},
    )
    workspace = Workspace(settings, uuid4())
    workspace.directory.mkdir()
    service = socket.create_server(("0.0.0.0", 0))
    targets["port"] = service.getsockname()[1]
    software = Software(SoftwareSettings(), (), place / "software")
    spec = staged(workspace, WORKFLOWS / "intruder", config=targets)
    with (
        service,
        _listening(str(targets["socket"])),
        _listening(f"\0{targets['abstract_socket']}"),
        SnakemakeEngine(HERE, software).start(spec, workspace) as execution,
    ):
        told = Run(workspace, list(execution.events()))
    assert told.exit_code == 0, workspace.snakemake_log.read_text()
    assert [event.text for event in told.of(Message) if "machine can't make" in event.text] == []
    found: dict[str, bool] = json.loads((workspace.work / "found.json").read_text())
    return found


def _move_to_a_network() -> None:
    """One of a machine of its own, in a cloud; nobody else on this machine sees it."""
    user, group = os.geteuid(), os.getegid()
    namespaces.unshare(namespaces.NEW_NETWORK | (namespaces.NEW_USER if user else 0))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1\n")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1\n")
    network.bring_up_loopback()
    for number, addresses in enumerate((MACHINE, METADATA, WORLD)):
        _add_to_loopback(f"lo:{number}", IPv4Interface(addresses))


def _add_to_loopback(label: str, address: IPv4Interface) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for call, value in ((SIOCSIFADDR, address.ip), (SIOCSIFNETMASK, address.netmask)):
            request = struct.pack("16sHH4s8x", label.encode(), socket.AF_INET, 0, value.packed)
            fcntl.ioctl(any_socket, call, request)


def _prepare(place: Path) -> dict[str, str | int]:
    other = place / "home" / "jobs" / str(uuid4())
    (other / "work").mkdir(parents=True)
    (other / "work" / "result.txt").write_text("of another group")
    (place / "data").mkdir()
    for name in (TOKENS, DATA, LOG):
        (place / name).write_text("content")
    os.environ["JOBS_TOKENS_FILE"] = str(place / TOKENS)
    return {
        "other_job": str(other),
        "tokens": str(place / TOKENS),
        "data": str(place / DATA),
        "worker_log": str(place / LOG),
        "socket": str(place / "home" / "socket"),
        "abstract_socket": f"of-the-service-{os.getpid()}",
        "service_pid": os.getpid(),
        "address": MACHINE.partition("/")[0],
        "world": "203.0.113.9",
    }


def _listening(address: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    return server


def main(place: Path) -> None:
    log = os.open(place / LOG, os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 2)  # as the worker has it
    _move_to_a_network()
    print(json.dumps(intrude(place)))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(Path(sys.argv[1]))
