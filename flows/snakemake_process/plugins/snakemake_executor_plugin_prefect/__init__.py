"""Snakemake executor plugin `prefect`: Snakemake's local executor, which reports what it does.

On the node of a cluster, it records the same in files (`flows.snakemake_process.cluster.records`).

It runs rule jobs exactly as Snakemake's own local executor does. In addition, it reports as workflow
events what no log record contains: the whole plan with the true dependencies, and the true start, end,
exit code and output of every attempt.

It uses private parts of Snakemake's local executor (`cached_or_run`, `handle_job_*`).
`tests/contracts` tests them for every version of Snakemake that this project supports.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from snakemake.executors.local import Executor as LocalExecutor
from snakemake.executors.local import common_settings  # noqa: F401 - part of the plugin's interface
from snakemake_interface_executor_plugins.settings import ExecMode

from flows.snakemake_process import capture, control_groups
from flows.snakemake_process.caching import part_from_cache
from flows.snakemake_process.cluster.records import DIRECTORY_VARIABLE, Records
from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import (
    ATTEMPT_LOGS,
    AttemptFinished,
    AttemptStarted,
    Outcome,
)
from flows.snakemake_process.planning import attempt_started, plan_of, rule_jobs_of
from flows.snakemake_process.usage import Usage

_FAILED_WITH_ITS_GROUP = "Another rule job of its group failed."
_LONGEST_RULE_IN_NAME = 60
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")
_EXIT_STATUS = re.compile(r"exit (?:status|code) (-?\d+)")


def _overruns() -> dict[str, int]:
    return {} if control_groups.current is None else control_groups.current.overruns()


@dataclass
class _Attempt:
    """An attempt between its start and the check of its outputs."""

    job: Any
    started_at: float
    finished_at: float | None = None
    exit_code: int | None = None
    exception: str = ""
    message: str = ""
    usage: Usage = field(default_factory=Usage)
    overruns: dict[str, int] = field(default_factory=_overruns)
    """How often the job was over its limits when the attempt began."""

    @property
    def has_failed(self) -> bool:
        return bool(self.exit_code or self.message)

    def fail(self, error: BaseException) -> None:
        self.exit_code, self.exception = _exit_code(error), type(error).__name__
        self.message = str(error) or self.exception
        if control_groups.current is not None and (excess := control_groups.current.excess(self.overruns)):
            # How the command ended follows from that.
            self.exit_code, self.exception, self.message = None, "", excess


class Executor(LocalExecutor):  # type: ignore[misc]  # untyped base
    """Runs rule jobs on this machine and reports the plan and every attempt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._attempts: dict[tuple[int, int], _Attempt] = {}
        # A `run:` block runs in a separate Snakemake (`--mode subprocess`), whose plan is not the workflow's.
        self._reports = emitter.is_open and self.workflow.exec_mode == ExecMode.DEFAULT
        self._records = self._records_of_node()
        if self._reports or self._records is not None:
            capture.install()  # the driver has done so already, a plain `snakemake` has not
            capture.spawn_with(self.envvars)
        if self._reports:
            self._plan = plan_of(self.workflow, self.dag)
            # Not below a working directory of the workflow's own, which may lie outside of the job's.
            self._log_directory = Path(emitter.directory, ATTEMPT_LOGS)
            self._log_directory.mkdir(parents=True, exist_ok=True)
            if self._plan.is_stale:
                self._plan.report()

    def _records_of_node(self) -> Records | None:
        """The records to write; None on the machine of the service."""
        directory = os.environ.get(DIRECTORY_VARIABLE)
        if directory is None or self.workflow.exec_mode != ExecMode.REMOTE:
            return None
        for rule in self.workflow.rules:
            rule.restart_times = 0  # retries are submissions of their own; `--retries 0` does not reach these
        return Records(Path(directory))

    def run_job_pre(self, job: Any) -> None:
        with self._reporting_a_failed_start(job):
            super().run_job_pre(job)

    def run_job(self, job: Any) -> None:
        with self._reporting_a_failed_start(job):
            super().run_job(job)

    def run_jobs(self, jobs: list[Any]) -> None:
        if self._reports and (self._plan.is_stale or not self._plan.holds(jobs)):
            self._plan.report()
        super().run_jobs(jobs)

    def shutdown(self) -> None:
        super().shutdown()
        if self._reports and self._plan.is_stale:
            self._plan.report()

    def cancel(self) -> None:
        super().cancel()
        error = sys.exception()  # over which Snakemake gives up, before it has handled the end of these
        for job_id, number in list(self._attempts):
            attempt = self._attempts[job_id, number]
            if isinstance(error, Exception) and attempt.finished_at is not None:
                if not attempt.has_failed:
                    attempt.fail(error)
                self._report_end(job_id, number, Outcome.FAILED)

    def get_envvar_declarations(self) -> str:
        # In the command of a `run:` block, secrets would be visible in lists of processes.
        return "" if self._reports else str(super().get_envvar_declarations())

    def cached_or_run(self, job: Any, run_func: Any, *args: Any) -> None:
        if not self._reports and self._records is None:
            super().cached_or_run(job, run_func, *args)
            return
        attempt = _Attempt(job, started_at=time.time())
        self._attempts[job.jobid, job.attempt] = attempt
        log_path = self._report_start(job, attempt.started_at)
        try:
            with capture.captured(log_path) as attempt.usage:
                super().cached_or_run(job, run_func, *args)
                part_from_cache(job.output)
        except BaseException as error:
            attempt.fail(error)
            raise
        finally:
            attempt.finished_at = time.time()

    def handle_job_success(self, job: Any) -> None:
        try:
            super().handle_job_success(job)
        except Exception as error:
            if (attempt := self._attempts.get((job.jobid, job.attempt))) is not None:
                attempt.fail(error)
            raise
        for rule_job in rule_jobs_of(job):
            if rule_job.rule.is_checkpoint and self._reports:
                # The DAG grows right after this call (`JobScheduler._finish_jobs`).
                self._plan.is_stale = True
                self._plan.grown_by.add(rule_job.jobid)
            self._report_end(rule_job.jobid, rule_job.attempt, Outcome.SUCCEEDED)

    def handle_job_error(self, job: Any) -> None:
        super().handle_job_error(job)
        self._mark_innocent(job)
        for rule_job in rule_jobs_of(job):
            will_retry = job.restart_times > job.attempt - 1
            attempt = self._attempts.get((rule_job.jobid, rule_job.attempt))
            # While Snakemake handles an exception, it rejects the outputs.
            if attempt is not None and not attempt.has_failed and (error := sys.exception()) is not None:
                attempt.fail(error)
            self._report_end(rule_job.jobid, rule_job.attempt, Outcome.FAILED, will_retry=will_retry)
            if will_retry:
                # Snakemake 9.27 loses a job that waits for its retry when a checkpoint ends: the DAG's
                # update skips jobs that it considers running (`DAG.update_ready`).
                self.dag._running.discard(job)

    def _report_start(self, job: Any, started_at: float) -> Path:
        """Returns the file for what the attempt writes."""
        if self._records is not None:
            self._records.write_start(job, started_at)
            return self._records.log_of(job)
        self._plan.begun.add(job.jobid)
        log_path = self._log_directory / _log_name(job)
        emitter.emit(attempt_started(job, started_at, str(log_path)))
        return log_path

    def _mark_innocent(self, group: Any) -> None:
        """Give members of a group that did not fail themselves a message about the failure of another."""
        keys = [(member.jobid, member.attempt) for member in rule_jobs_of(group)]
        attempts = [self._attempts[key] for key in keys if key in self._attempts]
        innocent = [each for each in attempts if not each.has_failed]
        if len(innocent) < len(attempts):
            for each in innocent:
                each.finished_at, each.message = time.time(), _FAILED_WITH_ITS_GROUP

    @contextmanager
    def _reporting_a_failed_start(self, job: Any) -> Iterator[None]:
        """Report that a rule job failed before its command could run, which ends Snakemake.

        As when a name in its command is unknown.
        """
        try:
            yield
        except Exception as error:
            for rule_job in rule_jobs_of(job) if self._reports else ():
                attempt = _Attempt(rule_job, time.time())
                self._attempts[rule_job.jobid, rule_job.attempt] = attempt
                attempt.fail(error)
                emitter.emit(
                    AttemptStarted(
                        time=attempt.started_at,
                        job_id=rule_job.jobid,
                        attempt=rule_job.attempt,
                        resources={},
                    )
                )
                self._report_end(rule_job.jobid, rule_job.attempt, Outcome.FAILED)
            raise

    def _report_end(self, job_id: int, number: int, outcome: Outcome, *, will_retry: bool = False) -> None:
        attempt = self._attempts.pop((job_id, number), None)
        if attempt is None:
            return
        finished = AttemptFinished(
            time=(now := time.time()),
            job_id=job_id,
            attempt=number,
            outcome=outcome,
            started_at=attempt.started_at,
            finished_at=attempt.finished_at or now,
            will_retry=will_retry,
            exit_code=attempt.exit_code,
            exception=attempt.exception,
            message=attempt.message,
            cpu_seconds=attempt.usage.cpu_seconds,
            peak_memory_bytes=attempt.usage.peak_memory_bytes,
        )
        if self._records is not None:
            self._records.write_end(attempt.job, asdict(finished))
        else:
            emitter.emit(finished)


def _log_name(job: Any) -> str:
    """Says which rule wrote the log; the numbers alone make it unique."""
    rule = _NOT_IN_NAME.sub("_", job.rule.name)[:_LONGEST_RULE_IN_NAME]
    return f"{rule}.{job.jobid}.{job.attempt}.log"


def _exit_code(error: BaseException | None) -> int | None:
    """The exit code of the command that caused `error`; Snakemake's events do not have it."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__context__
    for link in chain:
        if isinstance(link, subprocess.CalledProcessError):
            return link.returncode
    # Messages come second: they repeat the command, which may contain such words itself.
    found = (_EXIT_STATUS.search(str(link)) for link in chain)
    return next((int(match[1]) for match in found if match), None)
