"""What `flows.snakemake_process` overrides and repairs of Snakemake, in every version that we name."""

import inspect
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import snakemake.api  # first, because it and `snakemake.workflow` import each other
import snakemake.exceptions
import snakemake.workflow
from snakemake.executors.local import Executor as LocalExecutor
from snakemake.jobs import Job
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake_executor_plugin_prefect import Executor
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_logger_plugin_prefect_events import LogHandler

from flows.snakemake_process import repairs
from flows.snakemake_process.scheduling import LinearScheduler
from tests.contracts import snakemake_names
from tests.contracts.overriding import accepts_as, assert_overrides, is_called_by, overridden_names
from tests.flows.environments.test_versions import VERSIONS, environment_of
from tests.support import WORKFLOWS

SNAKEMAKE = Path(sys.executable).parent / "snakemake"
COUNTING = """
import sys
from snakemake.cli import main
from snakemake.scheduling.greedy import Scheduler

considered = 0
select_jobs = Scheduler.select_jobs

def counting(self, selectable_jobs, *others):
    global considered
    considered += len(selectable_jobs)
    return select_jobs(self, selectable_jobs, *others)

Scheduler.select_jobs = counting
try:
    main(sys.argv[1:])
finally:
    print("considered", considered)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_every_private_name_is_there_in_each_version(version: str) -> None:
    python = environment_of(version).python
    found = subprocess.run([python, snakemake_names.__file__], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 0), found.stderr


def test_our_executor_extends_these_methods_of_snakemakes() -> None:
    names = {
        "__post_init__",
        "cached_or_run",
        "cancel",
        "get_envvar_declarations",
        "handle_job_error",
        "handle_job_success",
        "run_job",
        "run_job_pre",
        "run_jobs",
        "shutdown",
    }
    assert_overrides(Executor, LocalExecutor, names)
    assert is_called_by(LocalExecutor, "cached_or_run")  # handed to the pool of threads
    assert is_called_by(LocalExecutor, "handle_job_error(")
    for method in ("handle_job_success(job)", "handle_job_error(job)"):
        assert f".get_executor(job).{method}" in inspect.getsource(JobScheduler)


def test_snakemakes_report_of_a_syntax_error_still_fails_itself() -> None:
    """When this fails, `_report_lines_of_syntax_errors` has become superfluous."""
    error = SyntaxError("Unexpected keyword outptu", ("Snakefile", 2, 1, None))
    with pytest.raises(KeyError):
        snakemake.exceptions.format_error(error, 2, linemaps={"Snakefile": {1: 1}}, snakefile="Snakefile")


def test_our_logger_answers_what_snakemake_asks_a_logger() -> None:
    names = {
        *("__post_init__", "emit", "has_filter", "has_formatter"),
        *("needs_rulegraph", "writes_to_file", "writes_to_stream"),
    }
    assert_overrides(LogHandler, LogHandlerBase, names)
    assert {"ERROR", "RUN_INFO", "WORKFLOW_STARTED"} <= set(LogEvent.__members__)


def test_our_scheduler_extends_these_parts_of_snakemakes() -> None:
    names = {"__init__", "job_selector", "open_jobs", "remaining_jobs"}
    assert overridden_names(LinearScheduler, JobScheduler) == names
    assert accepts_as(LinearScheduler.job_selector, JobScheduler.job_selector)
    # It is called with arguments in this order.
    ours, theirs = (inspect.signature(each.__init__).parameters for each in (LinearScheduler, JobScheduler))
    assert len(ours) == len(theirs) == 5
    for name in ("job_selector(", "open_jobs", "remaining_jobs", "dryrun", "job_rate_limiter"):
        assert is_called_by(JobScheduler, name)
    for name in ("_job_selector", "_greedy_scheduler"):
        assert is_called_by(JobScheduler, f"{name} = ")
    assert "self._ready_jobs" in inspect.getsource(snakemake.workflow.DAG.ready_jobs.fget)
    assert "JobScheduler(" in inspect.getsource(snakemake.workflow.Workflow), "as a name of this module"


@dataclass
class Interrupted:
    """A scheduler whose main thread holds its lock while the signal comes."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open_jobs: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _user_kill: str | None = None

    def is_ended_by(self, handler: object) -> bool:
        assert callable(handler)
        with self._lock:
            thread = threading.Thread(target=handler, args=(self,), daemon=True)
            thread.start()
            thread.join(0.5)
            is_done = not thread.is_alive()
        thread.join(5)
        return is_done and self._user_kill == "graceful" and self._open_jobs.acquire(timeout=5)


def test_our_handler_for_sigterm_needs_no_lock() -> None:
    assert Interrupted().is_ended_by(repairs._exit_gracefully)


def test_snakemakes_handler_for_sigterm_still_waits_for_the_lock() -> None:
    """When this fails, `repairs._exit_gracefully` has become superfluous."""
    assert not Interrupted().is_ended_by(JobScheduler.exit_gracefully)
    assert "signal.signal(signal.SIGTERM, self.exit_gracefully)" in inspect.getsource(JobScheduler.__init__)
    assert "self._lock = threading.Lock()" in inspect.getsource(JobScheduler.__init__), "not a reentrant one"


def test_snakemake_still_forgets_a_retry_that_waits_when_a_checkpoint_ends(tmp_path: Path) -> None:
    """When this fails, `dag._running.discard` in our executor has become superfluous."""
    shutil.copytree(WORKFLOWS / "lost_retry", tmp_path / "workflow")
    ended = subprocess.run(
        [SNAKEMAKE, "--cores", "3", "--scheduler", "greedy"],
        cwd=tmp_path / "workflow",
        capture_output=True,
        text=True,
        check=False,
    )
    assert not (tmp_path / "workflow" / "retried.txt").exists(), ended.stderr


def test_snakemake_still_considers_every_ready_rule_job_in_every_round(tmp_path: Path) -> None:
    """When this fails, `LinearScheduler` may have become superfluous."""
    count = 40
    (tmp_path / "Snakefile").write_text(
        f'rule all:\n    input: [f"{{n}}.txt" for n in range({count})]\n'
        'rule touch:\n    output: "{n}.txt"\n    shell: "touch {output}"\n'
    )
    command = [sys.executable, "-c", COUNTING, "--cores", "1", "--scheduler", "greedy"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    considered = int(ended.stdout.rpartition("considered ")[2])
    assert considered > count * count / 4


class Dependencies(Mapping[Job, set[str]]):
    """What a rule job waits for; counts how many of them are looked at."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.looks = 0

    def __getitem__(self, job: Job) -> set[str]:
        self.looks += 1
        return set()

    def __iter__(self) -> Iterator[Job]:
        return iter(range(self._count))

    def __len__(self) -> int:
        return self._count


def test_snakemake_still_searches_all_dependencies_for_each_input() -> None:
    """When this fails, `scheduling._is_pipe_or_service_input` has become superfluous."""

    class Waiting:
        """A rule job, as far as the search looks at it."""

        def __init__(self) -> None:
            self.found = Dependencies(100)
            self.dag = self
            self.dependencies = {self: self.found}

    job = Waiting()
    assert not Job.is_pipe_or_service_input(job, "input.txt")
    assert job.found.looks == 100


def test_snakemake_still_makes_software_without_a_lock() -> None:
    """snakemake#1685. When this fails, `flows.snakemake_process.software` may have become superfluous."""
    conda = sys.modules["snakemake.deployment.conda"]
    singularity = sys.modules["snakemake.deployment.singularity"]
    for method in (conda.Env.create, singularity.Image.pull):
        assert "lock" not in inspect.getsource(method).replace("block", "").lower()
