"""Snakemake executor plugin `prefect`: Snakemake's local executor, which reports what it does.

It runs rule jobs exactly as Snakemake's own local executor does. In addition, it reports as workflow
events what no log record contains: the whole plan with the true dependencies, and the true start, end,
exit code and output of every attempt.

It uses private parts of Snakemake's local executor (`cached_or_run`, `handle_job_*`).
`tests/contracts` tests them for every version of Snakemake that this project supports.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.executors.local import Executor as LocalExecutor
from snakemake.executors.local import common_settings  # noqa: F401 - part of the plugin's interface
from snakemake_interface_executor_plugins.settings import ExecMode

from flows.snakemake_process import capture
from flows.snakemake_process.caching import part_from_cache
from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    Outcome,
    PlanCompleted,
    RuleJobDropped,
    RuleJobPlanned,
)
from flows.snakemake_process.software import undeployed
from flows.snakemake_process.usage import Usage

LOG_DIRECTORY = Path(".snakemake") / "attempts"
_HIDDEN_RESOURCES = frozenset({"_cores", "_nodes"})
_FAILED_WITH_ITS_GROUP = "Another rule job of its group failed."
_EXIT_STATUS = re.compile(r"exit (?:status|code) (-?\d+)")


@dataclass
class _Attempt:
    """An attempt between its start and the check of its outputs."""

    started_at: float
    finished_at: float | None = None
    exit_code: int | None = None
    message: str = ""
    usage: Usage = field(default_factory=Usage)


@dataclass
class _Plan:
    """The plan as reported so far, so that only changes are reported after a checkpoint."""

    reported: dict[int, RuleJobPlanned] = field(default_factory=dict)
    is_stale: bool = True
    grown_by: set[int] = field(default_factory=set)
    """Checkpoints that have ended since the report. New rule jobs in the DAG come from them."""

    def holds(self, jobs: Iterable[Any]) -> bool:
        return all(rule_job.jobid in self.reported for job in jobs for rule_job in _rule_jobs(job))


class Executor(LocalExecutor):  # type: ignore[misc]  # untyped base
    """Runs rule jobs on this machine and reports the plan and every attempt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._attempts: dict[tuple[int, int], _Attempt] = {}
        self._plan = _Plan()
        # A `run:` block runs in a separate Snakemake (`--mode subprocess`), whose plan is not the workflow's.
        self._reports = emitter.is_open and self.workflow.exec_mode == ExecMode.DEFAULT
        if self._reports:
            capture.install(self.envvars)
            methods = self.workflow.deployment_settings.deployment_method
            self._methods = frozenset(str(method) for method in methods)
            LOG_DIRECTORY.mkdir(parents=True, exist_ok=True)
            self._report_plan()

    def run_jobs(self, jobs: list[Any]) -> None:
        if self._reports and (self._plan.is_stale or not self._plan.holds(jobs)):
            self._report_plan()
        super().run_jobs(jobs)

    def shutdown(self) -> None:
        super().shutdown()
        if self._reports and self._plan.is_stale:
            self._report_plan()

    def get_envvar_declarations(self) -> str:
        # In the command of a `run:` block, secrets would be visible in lists of processes.
        return "" if self._reports else str(super().get_envvar_declarations())

    def cached_or_run(self, job: Any, run_func: Any, *args: Any) -> None:
        if not self._reports:
            super().cached_or_run(job, run_func, *args)
            return
        attempt = _Attempt(started_at=time.time())
        self._attempts[job.jobid, job.attempt] = attempt
        log_path = LOG_DIRECTORY / f"{job.jobid}.{job.attempt}.log"
        emitter.emit(_attempt_started(job, attempt.started_at, str(log_path.absolute())))
        try:
            with capture.captured(log_path) as attempt.usage:
                super().cached_or_run(job, run_func, *args)
                part_from_cache(job.output)
        except BaseException as error:
            attempt.exit_code, attempt.message = _exit_code(error), str(error)
            raise
        finally:
            attempt.finished_at = time.time()

    def handle_job_success(self, job: Any) -> None:
        super().handle_job_success(job)
        for rule_job in _rule_jobs(job):
            if rule_job.rule.is_checkpoint:
                # The DAG grows right after this call (`JobScheduler._finish_jobs`).
                self._plan.is_stale = True
                self._plan.grown_by.add(rule_job.jobid)
            self._report_end(rule_job, Outcome.SUCCEEDED, will_retry=False)

    def handle_job_error(self, job: Any) -> None:
        super().handle_job_error(job)
        self._mark_innocent(job)
        for rule_job in _rule_jobs(job):
            will_retry = job.restart_times > job.attempt - 1
            self._report_end(rule_job, Outcome.FAILED, will_retry=will_retry)
            if will_retry:
                # Snakemake 9.27 loses a job that waits for its retry when a checkpoint ends: the DAG's
                # update skips jobs that it considers running (`DAG.update_ready`).
                self.dag._running.discard(job)

    def _mark_innocent(self, group: Any) -> None:
        """Give members of a group that did not fail themselves a message about the failure of another."""
        keys = [(member.jobid, member.attempt) for member in _rule_jobs(group)]
        attempts = [self._attempts[key] for key in keys if key in self._attempts]
        innocent = [each for each in attempts if not each.exit_code and not each.message]
        if len(innocent) < len(attempts):
            for each in innocent:
                each.finished_at, each.message = time.time(), _FAILED_WITH_ITS_GROUP

    def _report_end(self, job: Any, outcome: Outcome, *, will_retry: bool) -> None:
        now = time.time()
        attempt = self._attempts.pop((job.jobid, job.attempt), None) if self._reports else None
        if attempt is None:
            return
        emitter.emit(
            AttemptFinished(
                time=now,
                job_id=job.jobid,
                attempt=job.attempt,
                outcome=outcome,
                started_at=attempt.started_at,
                finished_at=attempt.finished_at or now,
                will_retry=will_retry,
                exit_code=attempt.exit_code,
                message=attempt.message,
                cpu_seconds=attempt.usage.cpu_seconds,
                peak_memory_bytes=attempt.usage.peak_memory_bytes,
            )
        )

    def _report_plan(self) -> None:
        """Report rule jobs that are new or changed, and those that were removed."""
        now = time.time()
        plan = {planned.job_id: planned for planned in self._planned(now)}
        for job_id, planned in plan.items():
            if not _is_same_job(self._plan.reported.get(job_id), planned):
                emitter.emit(planned)
        for job_id in self._plan.reported.keys() - plan.keys():
            emitter.emit(RuleJobDropped(time=now, job_id=job_id))
        self._plan = _Plan(reported=plan, is_stale=False)
        emitter.emit(PlanCompleted(time=now, total=len(plan)))

    def _planned(self, now: float) -> Iterator[RuleJobPlanned]:
        still_there = {self.dag.jobid(job) for job in self.dag.jobs}
        for job in self.dag.jobs:
            yield RuleJobPlanned(
                time=now,
                job_id=self.dag.jobid(job),
                rule=job.rule.name,
                wildcards=_strings(job.wildcards_dict),
                depends_on=self._dependencies(job, still_there),
                resources={},
                reason="" if not self.dag.needrun(job) else str(self.dag.reason(job)),
                inputs=self._paths(job.input),
                outputs=self._paths(job.output),
                logs=self._paths(job.log),
                is_done=not self.dag.needrun(job),
                undeployed=undeployed(job.rule, self._methods),
            )

    def _dependencies(self, job: Any, still_there: set[int]) -> tuple[int, ...]:
        """Ids of the jobs that `job` waits for or has waited for.

        After a checkpoint, Snakemake's DAG no longer has the edges that start at it.
        """
        reported = self._plan.reported.get(self.dag.jobid(job))
        now = {self.dag.jobid(other) for other in self.dag.dependencies[job]}
        if reported is not None:
            return tuple(sorted(now | (set(reported.depends_on) & still_there)))
        return tuple(sorted(now or self._plan.grown_by))

    def _paths(self, files: Iterable[Any]) -> tuple[str, ...]:
        """Paths relative to the directory that Snakemake was started in, even after a `workdir:`.

        A file in a storage has its address there instead, such as `s3://bucket/key`.
        """
        started_in = self.workflow.workdir_init
        moves = os.getcwd() != str(started_in)
        return tuple(
            str(path.storage_object.query)
            if path.is_storage
            else os.path.relpath(path, started_in)
            if moves
            else str(path)
            for path in files
        )


def _attempt_started(job: Any, started_at: float, log_path: str) -> AttemptStarted:
    return AttemptStarted(
        time=started_at,
        job_id=job.jobid,
        attempt=job.attempt,
        threads=job.threads,
        resources={
            name: value
            for name, value in job.resources.items()
            if name not in _HIDDEN_RESOURCES and isinstance(value, int | float | str)
        },
        reason=str(job.dag.reason(job)),
        shell=job.shellcmd,
        log_path=log_path,
    )


def _is_same_job(reported: RuleJobPlanned | None, planned: RuleJobPlanned) -> bool:
    """Whether nothing has changed except what the execution itself changes."""
    return reported is not None and (
        reported.rule,
        reported.wildcards,
        reported.depends_on,
        reported.inputs,
        reported.outputs,
    ) == (
        planned.rule,
        planned.wildcards,
        planned.depends_on,
        planned.inputs,
        planned.outputs,
    )


def _rule_jobs(job: Any) -> Iterable[Any]:
    """The job itself, or the members of a group (locally, only pipes and services form groups)."""
    return list(job) if job.is_group() else [job]


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


def _strings(wildcards: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in wildcards.items()}
