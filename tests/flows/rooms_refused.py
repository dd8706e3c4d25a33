"""Runs a job where the kernel makes no namespaces of a kind, `user` or `net`.

`python -m tests.flows.rooms_refused DIRECTORY KIND`
"""

import json
import os
import sys
from pathlib import Path

from flows.engines.engine import EngineVanishedError
from flows.engines.snakemake import SnakemakeEngine
from flows.snakemake_process import namespaces
from flows.snakemake_process.events import WorkflowEvent
from tests.flows.executions import HERE, NO_SOFTWARE, new_workspace, staged
from tests.support import WORKFLOWS


def refuse_namespaces(kind: str) -> None:
    """The limit of a user namespace holds for those in it, so only this process is concerned."""
    user, group = os.geteuid(), os.getegid()
    namespaces.unshare(namespaces.NEW_USER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1\n")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1\n")
    Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")


def main(place: Path, kind: str) -> None:
    refuse_namespaces(kind)
    workspace = new_workspace(place / "home")
    spec = staged(workspace, WORKFLOWS / "touch", config={"count": 1})
    events: list[WorkflowEvent] = []
    has_vanished = False
    with SnakemakeEngine(HERE, NO_SOFTWARE).start(spec, workspace) as execution:
        try:
            events.extend(execution.events())
        except EngineVanishedError:
            has_vanished = True
    said = [text for event in events if "machine can't" in (text := getattr(event, "text", ""))]
    print(json.dumps({"said": said, "has_vanished": has_vanished}))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
