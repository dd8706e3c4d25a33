"""A job takes no more than its limits as a whole, where control groups can be made, and leaves no group."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flows.engines.engine import EngineVanishedError, Execution
from flows.known_errors import advice
from flows.snakemake_process import control_groups
from flows.snakemake_process.control_groups import ControlGroup
from flows.snakemake_process.events import AttemptStarted, WorkflowEvent
from flows.workspace.workspace import Workspace
from tests.flows.conftest import supervisors
from tests.flows.executions import run, staged, write_workflow
from tests.support import wait_until

GROUP = re.compile(r"prefect-snakemake-[0-9a-f]+")
MEMORY_MB, PROCESSES = 600, 150
GREEDY = """
rule all:
    input: "memory.txt", "processes.txt"

rule memory:
    output: "memory.txt"
    priority: 1
    shell:
        "for number in 1 2 3 4; do python -c 'import time; block = bytearray(250 << 20); time.sleep(20)' & "
        "done; for number in 1 2 3 4; do wait -n; done; touch {output}"

rule processes:
    output: "processes.txt"
    shell: "python -c 'import subprocess; [subprocess.Popen([\\"sleep\\", \\"20\\"]) for _ in range(300)]'"
"""


@pytest.fixture(autouse=True)
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(control_groups._bases()):
        pytest.skip("this user can't make control groups here")
    limits = {"memory_mb": MEMORY_MB, "processes": PROCESSES}
    monkeypatch.setenv("JOBS_LIMITS", json.dumps({"*": limits}))


def groups() -> list[Path]:
    """Those that processes below this one are in: other tests have jobs at the same time."""
    names: set[str] = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(OSError):
            names |= set(GROUP.findall(Path(f"/proc/{process.pid}/cgroup").read_text()))
    return [base / name for _, base, _ in control_groups._bases() for name in names]


def is_empty(group: Path) -> bool:
    """Also when the job of another test has removed it."""
    try:
        return not (group / "cgroup.procs").read_text()
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("isolation", ["preferred", "off"])
def test_processes_of_one_job_share_its_limits_and_the_error_names_the_limit(
    isolation: str, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS_ISOLATION", isolation)
    workflow = write_workflow(tmp_path / "workflow", GREEDY)

    used: set[Path] = set()

    def note_groups(event: WorkflowEvent, _: Execution) -> None:
        if isinstance(event, AttemptStarted):
            used.update(groups())

    told = run(staged(workspace, workflow, options={"keep_going": True}, cores=1), workspace, note_groups)

    (memory,), (processes,) = told.finished("memory"), told.finished("processes")
    assert memory.message == f"The job exceeded its limit of {MEMORY_MB} MiB of memory."
    assert processes.message == f"The job exceeded its limit of {PROCESSES} processes and threads."
    known = advice("", memory.message)
    assert known is not None
    assert known[2] == "over-the-limit"
    assert used
    wait_until(lambda: not any(each.exists() for each in used), "no control group is left", seconds=5)


def test_the_group_of_a_killed_supervisor_is_removed_by_the_next_job(
    workspace: Workspace, tmp_path: Path
) -> None:
    workflow = write_workflow(
        tmp_path / "workflow", "rule wait:\n    output: 'never'\n    shell: 'sleep 60'\n"
    )

    left: list[Path] = []

    def kill_supervisor(event: WorkflowEvent, _: Execution) -> None:
        if isinstance(event, AttemptStarted):
            (supervisor,) = supervisors()
            left.extend(groups())
            supervisor.kill()

    with pytest.raises(EngineVanishedError):
        run(staged(workspace, workflow), workspace, kill_supervisor)
    assert left
    wait_until(lambda: all(map(is_empty, left)), "they are empty")

    next_one = ControlGroup({"RLIMIT_DATA": 1 << 30, "RLIMIT_NPROC": 1000})
    if (pid := os.fork()) == 0:
        next_one.enter()
        os._exit(0)
    os.waitpid(pid, 0)

    assert not any(each.exists() for each in left)
    next_one.remove()
    assert not any(part.directory.exists() for part in next_one._parts)
