"""Lets a job attack what is around it: `python -m tests.flows.intruding DIRECTORY`, as any user."""

import json
import os
import socket
import sys
from pathlib import Path
from uuid import uuid4

from flows.contract.data_roots import EVERY_GROUP
from flows.contract.environments import SoftwareSettings
from flows.engines.snakemake import SnakemakeEngine
from flows.engines.software import Software
from flows.snakemake_process.events import Message
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace
from tests.flows.executions import HERE, Run, staged
from tests.support import WORKFLOWS

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
    software = Software(SoftwareSettings(), (), place / "software")
    spec = staged(workspace, WORKFLOWS / "intruder", config=targets)
    with (
        _listening(str(targets["socket"])),
        _listening(f"\0{targets['abstract_socket']}"),
        SnakemakeEngine(HERE, software).start(spec, workspace) as execution,
    ):
        told = Run(workspace, list(execution.events()))
    assert told.exit_code == 0, workspace.snakemake_log.read_text()
    assert [event.text for event in told.of(Message) if "make a room" in event.text] == []
    found: dict[str, bool] = json.loads((workspace.work / "found.json").read_text())
    return found


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
    }


def _listening(address: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    return server


def main(place: Path) -> None:
    log = os.open(place / LOG, os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 2)  # as the worker has it
    print(json.dumps(intrude(place)))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(Path(sys.argv[1]))
