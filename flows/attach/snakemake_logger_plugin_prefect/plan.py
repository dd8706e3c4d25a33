"""Finds the workflow that Snakemake runs, and reads its plan.

No log record has the plan. But Snakemake's own functions call a filter of its logger, so the workflow
is on the stack. It is read in Snakemake's thread, between two steps of its own, because its graph
changes while it runs. `tests/contracts` tests the private names in every version that we support.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from .rule_job import Planned

_HIDDEN_RESOURCES = frozenset({"_cores", "_nodes"})
_SCHEDULERS = ("snakemake.scheduling.job_scheduler", "snakemake.scheduler")
"""The module of the scheduler, which moved in 9.8."""


def workflow_on_stack() -> Any:
    """The `snakemake.workflow.Workflow` that has called the logger; None if another part of Snakemake did."""
    for frame in _frames():
        caller = frame.f_locals.get("self") if frame.f_code.co_filename.endswith("workflow.py") else None
        if (type(caller).__module__, type(caller).__qualname__) == ("snakemake.workflow", "Workflow"):
            return caller
    return None


def job_on_stack() -> Any:
    """The job whose outputs Snakemake is checking; None if it is doing something else.

    It names a rule job that has run and whose outputs it rejects in no record.
    """
    for frame in _frames():
        if frame.f_code.co_name == "postprocess" and frame.f_globals.get("__name__") in _SCHEDULERS:
            return frame.f_locals.get("job")
    return None


def is_main(workflow: Any) -> bool:
    """Whether it is the workflow, not a rule job that Snakemake runs in a Snakemake of its own."""
    return bool(workflow.is_main_process)


class Plan:
    """The plan of one workflow. Remembers the edges that Snakemake forgets."""

    def __init__(self, workflow: Any) -> None:
        self._workflow = workflow
        self._edges: dict[int, frozenset[int]] = {}
        self.grown_by: set[int] = set()
        """Checkpoints that have ended since the plan was read. New rule jobs come from them."""

    @property
    def envvars(self) -> frozenset[str]:
        """The environment variables that the workflow names."""
        return frozenset(self._workflow.envvars)

    def read(self) -> list[Planned]:
        """Every rule job. Raises whatever Snakemake raises."""
        dag = self._workflow.dag
        jobs = list(dag.jobs)
        present = {dag.jobid(job) for job in jobs}
        plan = [self._planned(dag, job, present) for job in jobs]
        self.grown_by = set()
        return plan

    def jobs(self) -> dict[int, Any]:
        """Snakemake's own objects, by id."""
        dag = self._workflow.dag
        return {dag.jobid(job): job for job in dag.jobs}

    def _planned(self, dag: Any, job: Any, present: set[int]) -> Planned:
        job_id = dag.jobid(job)
        needs_run = dag.needrun(job)
        return Planned(
            job_id=job_id,
            rule=job.rule.name,
            wildcards={name: str(value) for name, value in job.wildcards_dict.items()},
            depends_on=self._dependencies(dag, job, present),
            inputs=tuple(_paths(job.input)),
            outputs=tuple(_paths(job.output)),
            reason=str(dag.reason(job)) if needs_run else "",
            is_done=not needs_run,
        )

    def _dependencies(self, dag: Any, job: Any, present: set[int]) -> tuple[int, ...]:
        """After a checkpoint, Snakemake's graph no longer has the edges that start at it."""
        job_id = dag.jobid(job)
        now = frozenset(dag.jobid(other) for other in dag.dependencies[job])
        known = self._edges.get(job_id)
        edges = (now or frozenset(self.grown_by)) if known is None else now | (known & present)
        self._edges[job_id] = edges - {job_id}
        return tuple(sorted(self._edges[job_id]))


def resources_of(resources: Any) -> dict[str, int | float | str]:
    """Those of a rule job that say something."""
    return {
        name: value
        for name, value in resources.items()
        if name not in _HIDDEN_RESOURCES and isinstance(value, int | float | str)
    }


def members_of(job: Any) -> Iterable[Any]:
    """The job itself, or the members of a group."""
    return list(job) if job.is_group() else [job]


def will_be_retried(job: Any) -> bool:
    """Whether Snakemake tries a job again that has just failed (`JobScheduler._handle_error`)."""
    return bool(job.restart_times > job.attempt - 1)


def _paths(files: Iterable[Any]) -> Iterator[str]:
    """A file in a storage has its address there, such as `s3://bucket/key`."""
    for path in files:
        yield str(path.storage_object.query) if path.is_storage else str(path)


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def absolute(paths: Iterable[Any]) -> tuple[str, ...]:
    return tuple(os.path.abspath(str(path)) for path in paths)
