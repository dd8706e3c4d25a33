"""Runs a container in the room of a job: `python -m tests.flows.software.container_in_room DIRECTORY`."""

import sys
from pathlib import Path

from flows.contract.environments import SoftwareSettings
from flows.contract.spec import SoftwareMethod
from flows.engines.snakemake import SnakemakeEngine
from flows.engines.software import Software
from flows.snakemake_process.events import Message
from tests.flows.executions import HERE, Run, new_workspace, staged


def main(place: Path) -> None:
    workspace = new_workspace(place / "home")
    software = Software(SoftwareSettings(), (SoftwareMethod.APPTAINER,), place / "group")
    spec = staged(workspace, place / "workflow")
    with SnakemakeEngine(HERE, software).start(spec, workspace) as execution:
        told = Run(workspace, list(execution.events()))
    assert told.exit_code == 0, workspace.snakemake_log.read_text()
    assert [event.text for event in told.of(Message) if "make a room" in event.text] == []
    assert (workspace.work / "hello.txt").read_text() == "Moin from the image\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
