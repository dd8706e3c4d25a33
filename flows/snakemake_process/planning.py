"""Reports the plan of a workflow, as every executor of ours does."""

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from snakemake.io import is_flagged

from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import AttemptStarted, PlanCompleted, RuleJobDropped, RuleJobPlanned
from flows.snakemake_process.software import undeployed

_HIDDEN_RESOURCES = frozenset({"_cores", "_nodes"})
_reports: "WeakKeyDictionary[Any, PlanReport]" = WeakKeyDictionary()


class PlanReport:
    """Reports the plan of one workflow; after a checkpoint, only what has changed."""

    def __init__(self, workflow: Any, dag: Any) -> None:
        self._dag = dag
        self._methods = frozenset(str(each) for each in workflow.deployment_settings.deployment_method)
        self._reported: dict[int, RuleJobPlanned] = {}
        self.is_stale = True
        self.grown_by: set[int] = set()
        """Checkpoints that have ended since the report. New rule jobs in the DAG come from them."""
        self.begun: set[int] = set()
        """Rule jobs that have started."""

    def holds(self, jobs: Iterable[Any]) -> bool:
        return all(rule_job.jobid in self._reported for job in jobs for rule_job in rule_jobs_of(job))

    def report(self) -> None:
        """Report rule jobs that are new or changed, and those that were removed."""
        now = time.time()
        plan = {planned.job_id: planned for planned in self._planned(now)}
        for job_id, planned in plan.items():
            reported = self._reported.get(job_id)
            if not _is_same_job(reported, planned) or self._is_obsolete(reported, planned):
                emitter.emit(planned)
        for job_id in self._reported.keys() - plan.keys():
            emitter.emit(RuleJobDropped(time=now, job_id=job_id))
        self._reported, self.is_stale, self.grown_by = plan, False, set()
        emitter.emit(PlanCompleted(time=now, total=len(plan)))

    def _is_obsolete(self, reported: RuleJobPlanned | None, planned: RuleJobPlanned) -> bool:
        """Whether a rule job will not run, although that was the plan: a checkpoint has made what it needs.

        As the target `all` whose only input is the output of a checkpoint.
        """
        is_new = reported is None or reported.is_done or planned.job_id in self.begun
        return planned.is_done and not is_new

    def _planned(self, now: float) -> Iterator[RuleJobPlanned]:
        still_there = {self._dag.jobid(job) for job in self._dag.jobs}
        for job in self._dag.jobs:
            yield RuleJobPlanned(
                time=now,
                job_id=self._dag.jobid(job),
                rule=job.rule.name,
                wildcards=_strings(job.wildcards_dict),
                depends_on=self._dependencies(job, still_there),
                resources={},
                reason="" if not self._dag.needrun(job) else str(self._dag.reason(job)),
                inputs=self._paths(job.input),
                outputs=self._paths(job.output),
                logs=self._paths(job.log),
                benchmarks=self._paths([job.benchmark] if job.benchmark else []),
                reported=self._paths(file for file in job.output if is_flagged(file, "report")),
                is_done=not self._dag.needrun(job),
                undeployed=undeployed(job.rule, self._methods),
            )

    def _dependencies(self, job: Any, still_there: set[int]) -> tuple[int, ...]:
        """Ids of the jobs that `job` waits for or has waited for.

        After a checkpoint, Snakemake's DAG no longer has the edges that start at it.
        """
        reported = self._reported.get(self._dag.jobid(job))
        now = {self._dag.jobid(other) for other in self._dag.dependencies[job]}
        if reported is not None:
            return tuple(sorted(now | (set(reported.depends_on) & still_there)))
        return tuple(sorted(now or self.grown_by))

    def _paths(self, files: Iterable[Any]) -> tuple[str, ...]:
        """Paths relative to the directory that Snakemake was started in, whatever `workdir` is.

        Paths outside of it are absolute. A file in a storage has its address there instead, such as
        `s3://bucket/key`.
        """
        moves = os.getcwd() != emitter.directory
        return tuple(
            str(path.storage_object.query)
            if path.is_storage
            else _relative_to(emitter.directory, os.path.abspath(path))
            if moves
            else str(path)
            for path in files
        )


def plan_of(workflow: Any, dag: Any) -> PlanReport:
    """The one report of the plan of `dag`: on a cluster, two executors run parts of the same plan."""
    if dag not in _reports:
        _reports[dag] = PlanReport(workflow, dag)
    return _reports[dag]


def attempt_started(job: Any, started_at: float, log_path: str | None) -> AttemptStarted:
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


def rule_jobs_of(job: Any) -> Iterable[Any]:
    """The job itself, or the members of a group (locally, only pipes and services form groups)."""
    return list(job) if job.is_group() else [job]


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


def _strings(wildcards: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in wildcards.items()}


def _relative_to(directory: str, path: str) -> str:
    return os.path.relpath(path, directory) if path.startswith(f"{directory}/") else path
