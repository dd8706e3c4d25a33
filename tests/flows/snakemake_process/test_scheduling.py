"""Our scheduling of rule jobs makes the choices of Snakemake's own, and is not quadratic."""

import logging
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import snakemake.api  # first, because it and `snakemake.workflow` import each other
import snakemake.workflow
from hypothesis import given
from hypothesis import strategies as st
from snakemake.jobs import Job
from snakemake.scheduling.greedy import Scheduler as GreedyScheduler
from snakemake.scheduling.greedy import SchedulerSettings

from flows.snakemake_process import scheduling
from flows.snakemake_process.events import AttemptFinished, Outcome
from flows.snakemake_process.scheduling import LinearScheduler, ReadyJobs
from tests.flows.conftest import NewWorkspace
from tests.flows.dags import CORES, MEMORY, random_snakefile
from tests.flows.executions import Run, execute, write_workflow

RULES = GreedyScheduler(None, SchedulerSettings(), logging.getLogger(__name__))
ONLY_PRIORITY = GreedyScheduler(
    None, SchedulerSettings(omit_prioritize_by_temp_and_input=True), logging.getLogger(__name__)
)


@dataclass(frozen=True)
class File:
    """An input file, as far as schedulers look at it."""

    name: int
    is_temporary: bool

    def is_flagged(self, flag: str) -> bool:
        return flag == "temp" and self.is_temporary


@dataclass(frozen=True, eq=False)
class Candidate:
    """A rule job, as far as schedulers look at it."""

    priority: int
    scheduler_resources: dict[str, int]
    input: tuple[File, ...]


@dataclass(frozen=True)
class Round:
    """What happens between two selections, and what can be given in the second."""

    newcomers: list[Candidate]
    gone: float
    """Which of those that wait is taken away, from 0 (the first) to 1 (the last)."""
    available: dict[str, int]


SIZES = {File(name, temporary): name * 10 for name in range(4) for temporary in (False, True)}
SIZES[File(0, False)] = None  # type: ignore[assignment]  # what Snakemake says of a file that is not there

few = st.integers(0, 3)
candidates = st.builds(
    Candidate,
    priority=st.integers(-1, 2),
    scheduler_resources=st.fixed_dictionaries(
        {"_cores": few, "_job_count": st.just(1)}, optional={"mem_mb": few, "unlimited": few}
    ),
    input=st.lists(st.sampled_from(list(SIZES)), max_size=3).map(tuple),
)
limits = st.builds(
    # In one order, as in `JobScheduler.resources`.
    lambda cores, memory, count: {"_cores": cores, "mem_mb": memory, "_job_count": count},
    st.integers(0, 6),
    st.integers(0, 6),
    st.sampled_from([2, sys.maxsize]),
)
rounds = st.lists(
    st.builds(Round, st.lists(candidates, max_size=12), gone=st.floats(0, 1), available=limits), max_size=6
)


@given(rounds=rounds, rules=st.sampled_from([RULES, ONLY_PRIORITY]))
def test_each_round_takes_what_snakemakes_greedy_scheduler_selects(
    rounds: list[Round], rules: GreedyScheduler
) -> None:
    waiting: list[Candidate] = []
    ready = ReadyJobs[Candidate]()
    for now in rounds:
        if waiting:
            gone = waiting.pop(int(now.gone * (len(waiting) - 1)))
            ready -= {gone}
        waiting += now.newcomers
        ready.update(now.newcomers)
        rank(ready, rules, now.available)
        expected = rules.select_jobs(waiting, [], now.available, SIZES) if waiting else []
        taken = ready.take(tuple(now.available.values()))
        assert set(taken) == set(expected)
        assert taken == sorted(taken, key=lambda job: rules.job_reward(job, SIZES), reverse=True)
        waiting = [job for job in waiting if job not in taken]
        assert set(ready) == set(waiting)
        assert len(ready) == len(waiting)


def rank(ready: ReadyJobs[Candidate], rules: GreedyScheduler, available: dict[str, int]) -> None:
    for job in list(ready.newcomers):
        reward = rules.job_reward(job, SIZES)
        demand = tuple(rules.job_weight(job, available))
        ready.rank(job, reward if isinstance(reward, tuple) else (reward,), demand)


def test_a_rule_job_that_is_added_again_after_it_was_taken_waits_again() -> None:
    ready = ReadyJobs(["first", "second"])
    for name in ("first", "second"):
        ready.rank(name, (0,), (1,))
    assert ready.take((1,)) == ["first"]
    ready.add("first")
    assert list(ready.newcomers) == ["first"]
    ready.rank("first", (5,), (1,))
    assert ready.take((9,)) == ["first", "second"]
    assert not ready


def test_when_snakemake_collects_the_ready_anew_nothing_of_the_old_ones_is_kept() -> None:
    ready = ReadyJobs(["old"])
    ready.rank("old", (0,), (1,))
    ready.clear()
    ready.update(["new", "old"])
    assert list(ready.newcomers) == ["new", "old"]
    assert ready.take((9,)) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_random_workflow_gives_what_it_gives_under_a_plain_snakemake(
    seed: int, workspaces: NewWorkspace, tmp_path: Path
) -> None:
    workflow = write_workflow(tmp_path / "workflow", random_snakefile(seed))
    ours = execute(
        workspaces(),
        workflow,
        cores=CORES,
        resources={"mem_mb": MEMORY},
        options={"keep_going": True, "retries": 1},
    )
    exit_code = plain_snakemake(workflow)
    assert ours.exit_code == exit_code
    assert started(ours.workspace.work) == started(workflow)
    assert files(ours.workspace.work) == files(workflow)
    assert_dependencies_come_first(ours)
    assert_limits_are_kept(ours)


def plain_snakemake(directory: Path) -> int:
    """Exit code of `snakemake` as anybody would call it, with none of our plugins."""
    command = [str(Path(sys.executable).with_name("snakemake")), "--scheduler=greedy", "--keep-going"]
    options = ["--retries=1", f"--cores={CORES}", "--resources", f"mem_mb={MEMORY}"]
    return subprocess.run(
        [*command, *options], cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).returncode


def started(directory: Path) -> Counter[str]:
    """How often each rule job was started."""
    return Counter((directory / "journal").read_text().splitlines())


def files(directory: Path) -> dict[str, str]:
    """Content of every file that is left, but for what tells of the order."""
    paths = (Path(parent, name) for parent, _, names in os.walk(directory) for name in names)
    found = {str(path.relative_to(directory)): path for path in paths}
    return {
        name: path.read_text()
        for name, path in found.items()
        if not name.startswith((".snakemake", "journal"))
    }


def assert_dependencies_come_first(run: Run) -> None:
    ends = {event.job_id: event.finished_at for event in run.of(AttemptFinished)}
    names = {planned.job_id: name for name, planned in run.plan.items()}
    piped = {("speak", "hear")}
    for name, planned in run.plan.items():
        for before in planned.depends_on:
            if (names[before], name) not in piped and run.started(name):
                assert ends[before] <= run.started(name)[0].time, (names[before], name)


def assert_limits_are_kept(run: Run) -> None:
    """At the start of each attempt, all that run then stay below the limits together."""
    attempts = [
        (start, end)
        for name in run.plan
        for start, end in zip(run.started(name), run.finished(name), strict=True)
    ]
    for moment in (end.started_at for _, end in attempts):
        running = [start for start, end in attempts if end.started_at <= moment < end.finished_at]
        assert sum(start.threads for start in running) <= CORES
        assert sum(int(start.resources.get("mem_mb", 0)) for start in running) <= MEMORY


def test_with_one_core_two_hundred_ready_rule_jobs_run_in_the_order_of_their_priorities(
    workspaces: NewWorkspace, tmp_path: Path
) -> None:
    priorities = random.Random(7).choices(range(50), k=200)
    snakefile = f"""
    PRIORITIES = {priorities}

    rule all:
        input: [f"out/{{number}}" for number in range(200)]

    for number, priority in enumerate(PRIORITIES):
        rule:
            name: f"n{{number}}"
            output: f"out/{{number}}"
            priority: priority
            shell: "touch {{output}}"
    """
    run = execute(workspaces(), write_workflow(tmp_path / "workflow", snakefile), cores=1)
    assert set(run.outcomes().values()) == {Outcome.SUCCEEDED}
    ran = sorted((start.time, name) for name in run.plan for start in run.started(name) if name != "all")
    order = [priorities[int(name.removeprefix("n"))] for _, name in ran]
    assert order == sorted(priorities, reverse=True)


def test_the_driver_puts_our_scheduler_where_snakemake_looks_for_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snakemake.workflow, "JobScheduler", snakemake.workflow.JobScheduler)
    monkeypatch.setattr(Job, "is_pipe_or_service_input", Job.is_pipe_or_service_input)
    scheduling.install()
    assert snakemake.workflow.JobScheduler is LinearScheduler
