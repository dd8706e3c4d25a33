"""Whatever ends an execution early, nothing of it goes on: not Snakemake, no rule job, no child of one."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows.engines.engine import EngineError, Execution
from flows.engines.snakemake import SnakemakeEngine
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    EngineExited,
    Outcome,
    WorkflowEvent,
)
from flows.workspace.workspace import Workspace
from tests.flows.conftest import supervisors
from tests.flows.executions import HERE, NO_SOFTWARE, Run, execute, run, staged, write_workflow
from tests.flows.grammar import assert_well_told
from tests.support import WORKFLOWS, processes_of, wait_until

SLEEPER = WORKFLOWS / "sleeper"
SOON = 15.0
"""Seconds for what should be gone at once; the sleepers would go by themselves after 60."""
PROJECT = WORKFLOWS.parents[1]


def begun(workspace: Workspace) -> int:
    """How many rule jobs of `sleeper` run, or have left their output half written."""
    return len(list((workspace.work / "results").glob("*.txt")))


def processes_in(workspace: Workspace) -> list[psutil.Process]:
    return processes_of(workspace.directory.name)


def follow(execution: Execution) -> None:
    """Read every event until the flow lets go."""
    with contextlib.suppress(EngineError):
        for _ in execution.events():
            pass


class TerminateWhen:
    """Asks the execution to end, from another thread, as soon as `condition` holds."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition
        self._watcher: threading.Thread | None = None
        self.asked_at = 0.0

    def __call__(self, event: WorkflowEvent, execution: Execution) -> None:
        if self._watcher is None and isinstance(event, AttemptStarted):
            self._watcher = threading.Thread(target=self._terminate, args=[execution])
            self._watcher.start()

    def _terminate(self, execution: Execution) -> None:
        wait_until(self._condition, "it is time to end the execution")
        self.asked_at = time.monotonic()
        execution.terminate()


def test_a_terminated_execution_ends_its_rule_jobs_removes_their_outputs_and_retries_none(
    workspace: Workspace,
) -> None:
    spec = staged(workspace, SLEEPER, options={"retries": 3})
    ended = run(spec, workspace, TerminateWhen(lambda: begun(workspace) == 2))
    assert_well_told(ended.events)
    assert processes_in(workspace) == []
    assert ended.exit_code == 1
    attempts = ended.of(AttemptFinished)
    assert {attempt.outcome for attempt in attempts} == {Outcome.FAILED}
    assert {attempt.attempt for attempt in attempts} == {1}
    assert not begun(workspace)


def test_an_execution_that_is_terminated_before_it_has_begun_still_tells_its_end(
    workspace: Workspace,
) -> None:
    spec = staged(workspace, SLEEPER)
    with SnakemakeEngine(HERE, NO_SOFTWARE).start(spec, workspace) as execution:
        execution.terminate()
        events = list(execution.events())
    assert isinstance(events[-1], EngineExited)
    assert [event for event in events if isinstance(event, AttemptStarted)] == [], "nobody wanted it any more"
    assert processes_in(workspace) == []


def test_an_execution_may_be_terminated_more_than_once_and_after_its_end(workspace: Workspace) -> None:
    spec = staged(workspace, WORKFLOWS / "bad_config")
    with SnakemakeEngine(HERE, NO_SOFTWARE).start(spec, workspace) as execution:
        events = list(execution.events())
        execution.terminate()
        execution.terminate()
    assert Run(workspace, events).exit_code == 0


def test_a_rule_job_that_does_not_want_to_end_is_killed(workspace: Workspace, tmp_path: Path) -> None:
    workflow = write_workflow(
        tmp_path / "stubborn",
        """
        rule all:
            input: "deaf.txt", "detached.txt"

        rule deaf:
            output: "deaf.txt"
            shell: "trap '' TERM; touch deaf; while true; do sleep 1; done"

        rule detached:
            output: "detached.txt"
            shell: "setsid bash -c 'trap \\"\\" TERM; touch detached; while true; do sleep 1; done' & wait"
        """,
    )
    terminate = TerminateWhen(lambda: all((workspace.work / name).exists() for name in ("deaf", "detached")))
    ended = run(staged(workspace, workflow), workspace, terminate)
    assert time.monotonic() - terminate.asked_at < 10
    assert processes_in(workspace) == []
    assert_well_told(ended.events)
    assert sorted(attempt.exit_code or 0 for attempt in ended.of(AttemptFinished)) == [-15, -9]


def test_what_a_rule_job_leaves_running_ends_with_the_execution(workspace: Workspace, tmp_path: Path) -> None:
    workflow = write_workflow(
        tmp_path / "leaving",
        """
        rule leave:
            output: "left.txt"
            shell: "setsid sleep 600 & echo $! > {output}"
        """,
    )
    assert execute(workspace, workflow).exit_code == 0
    assert processes_in(workspace) == []


@pytest.mark.parametrize("follows", [True, False], ids=["following", "with events unread"])
def test_a_flow_that_lets_go_without_a_word_leaves_nothing_running(
    workspace: Workspace, follows: bool
) -> None:
    spec = staged(workspace, SLEEPER)
    with SnakemakeEngine(HERE, NO_SOFTWARE).start(spec, workspace) as execution:
        follower = threading.Thread(target=follow, args=[execution])
        if follows:
            follower.start()
        wait_until(lambda: begun(workspace) == 2, "two rule jobs run")
    assert not processes_in(workspace), "it was waited for"
    wait_until(lambda: not supervisors(), "everything is gone", SOON)
    assert not begun(workspace), "Snakemake could clean up"


def is_free(lock_file: Path) -> bool:
    with lock_file.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


FLOW_PROCESS = """
import signal, sys
from pathlib import Path
from flows.engines.snakemake import SnakemakeEngine
from tests.flows.executions import HERE, NO_SOFTWARE, new_workspace, staged

workspace = new_workspace(Path(sys.argv[1]))
with SnakemakeEngine(HERE, NO_SOFTWARE).start(staged(workspace, Path(sys.argv[2])), workspace) as execution:
    print(workspace.directory.name, flush=True)
    for event in execution.events():
        if sys.argv[3] == "blocked":
            signal.pause()
"""


@pytest.fixture(params=["following", "blocked"])
def flow_process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A process that executes `sleeper` like a flow process, and its job's id."""
    arguments = [str(tmp_path / "home"), str(SLEEPER), request.param]
    with subprocess.Popen(
        [sys.executable, "-c", FLOW_PROCESS, *arguments], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        job_id = process.stdout.readline().strip()
        try:
            yield process.pid, job_id
        finally:
            for left in (psutil.Process(process.pid), *processes_of(job_id)):
                left.kill()


def test_a_flow_process_that_is_killed_leaves_nothing_running(
    flow_process: tuple[int, str], tmp_path: Path
) -> None:
    pid, job_id = flow_process
    results = tmp_path / "home" / "jobs" / job_id / "work" / "results"
    wait_until(lambda: len(list(results.glob("*.txt"))) == 2, "two rule jobs run")
    below = psutil.Process(pid).children(recursive=True)
    assert len(processes_of(job_id)) > 2
    os.kill(pid, signal.SIGKILL)
    while not is_free(results.parent.with_suffix(".lock")):
        time.sleep(0.001)
    assert not processes_of(job_id), "everything in the job's directory is gone before a successor may come"
    wait_until(lambda: not any(process.is_running() for process in below), "all below it is gone", SOON)
    assert not any(results.glob("*.txt")), "Snakemake could clean up"


def test_when_snakemake_is_killed_its_rule_jobs_go_with_it(workspace: Workspace) -> None:
    def kill_snakemake(event: WorkflowEvent, _: Execution) -> None:
        if isinstance(event, AttemptStarted):
            wait_until(lambda: begun(workspace) == 1, "the rule job runs")
            min(processes_in(workspace), key=psutil.Process.create_time).kill()

    killed = run(staged(workspace, SLEEPER, cores=1), workspace, kill_snakemake)
    assert killed.exit_code == -signal.SIGKILL
    assert processes_in(workspace) == []


@pytest.mark.parametrize(
    ("isolation", "below"),
    [("required", 0), ("required", 1), ("off", 1)],
    ids=["in a room, the one outside", "in a room, the warden", "without a room"],
)
def test_when_the_supervisor_is_killed_the_engine_has_vanished_and_nothing_runs(
    isolation: str, below: int, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what has left its session, from the moment on in which the flow knows."""
    monkeypatch.setenv("JOBS_ISOLATION", isolation)
    writer = "while :; do date > alive.txt; done"
    workflow = write_workflow(
        tmp_path / "leaving",
        f"rule leave:\n    output: 'never'\n    shell: \"setsid --fork sh -c '{writer}'; sleep 600\"\n",
    )

    def kill_supervisor(event: WorkflowEvent, _: Execution) -> None:
        if isinstance(event, AttemptStarted):
            wait_until((workspace.work / "alive.txt").exists, "the rule has left its session")
            (victim,) = supervisors()
            for _depth in range(below):
                (victim,) = (each for each in victim.children() if each.name() != "slirp4netns")
            victim.kill()

    with pytest.raises(EngineError, match="the supervisor of Snakemake's process ended"):
        run(staged(workspace, workflow), workspace, kill_supervisor)
    assert processes_in(workspace) == []


def test_a_rule_that_kills_its_supervisor_leaves_nothing_running(
    workspace: Workspace, tmp_path: Path
) -> None:
    workflow = write_workflow(
        tmp_path / "killing",
        """
        rule kill:
            output: "killed.txt"
            shell: "touch begun; setsid sleep 600 & kill -9 1 $PPID; kill -9 -1; sleep 600"
        """,
    )
    with contextlib.suppress(EngineError):
        execute(workspace, workflow)
    assert (workspace.work / "begun").exists()
    wait_until(lambda: not processes_in(workspace), "nothing of it runs", seconds=10)


@pytest.mark.parametrize("finished", [20, 100, 300])
def test_a_big_workflow_ends_soon_in_the_middle_of_its_scheduling(
    workspace: Workspace, finished: int
) -> None:
    """Snakemake's own handler for SIGTERM waits for itself here, see `flows.snakemake_process.driver`."""
    asked_at = 0.0
    attempts = 0

    def terminate(event: WorkflowEvent, execution: Execution) -> None:
        nonlocal asked_at, attempts
        attempts += isinstance(event, AttemptFinished)
        if attempts == finished and not asked_at:
            asked_at = time.monotonic()
            execution.terminate()

    spec = staged(workspace, WORKFLOWS / "touch", config={"count": 1_500}, cores=4)
    ended = run(spec, workspace, terminate)
    assert time.monotonic() - asked_at < 10
    assert_well_told(ended.events)
    assert len(ended.plan) == 1_501
    assert finished <= len(ended.of(AttemptFinished)) < 1_500
    assert processes_in(workspace) == []
