"""Makes any executor plugin for a cluster report what it does, as workflow events.

`install` replaces the class of each such plugin by a subclass of it. Only the cluster decides whether a
job has succeeded; nodes tell when an attempt began and ended, and what it took.

It uses parts of `snakemake_interface_executor_plugins` that are not documented (`RemoteExecutor.sleep`,
`check_active_jobs` of plugins). `tests/flows/cluster` runs it with the real plugins.
"""

import asyncio
import re
import shlex
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from flows.snakemake_process.cluster.attempts import Attempt, OpenAttempts
from flows.snakemake_process.cluster.aws_batch import AwsBatch
from flows.snakemake_process.cluster.clusters import Cluster
from flows.snakemake_process.cluster.records import Records
from flows.snakemake_process.cluster.slurm import Slurm
from flows.snakemake_process.cluster.submission import Submission
from flows.snakemake_process.decisions import ClusterDecisions
from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import (
    ATTEMPT_LOGS,
    AttemptFinished,
    AttemptSubmitted,
    Outcome,
)
from flows.snakemake_process.planning import attempt_started, plan_of

LOOK_SECONDS = 0.5
"""Between two looks at what nodes have recorded."""

WAKE_SECONDS = (0.3, 0.5, 1, 2, 2, 5, 10, 20)
"""When the plugin asks its cluster after a node has recorded an end: soon, then ever more rarely."""

_FEWEST_SECONDS, _MOST_SECONDS, _UNITS_PER_SECOND = 0.5, 10.0, 50
"""Between two questions of the plugin, the more the more it asks for: the cluster serves others, too."""

QUEUE_SECONDS = 10.0
"""Between two looks at the cluster's queue."""

_FAILED_WITH_ITS_GROUP = "Another rule job of its group failed."
_CANCELLED = "It was cancelled."
_LONGEST_CLUSTER_LOG = 20_000
_EXECUTOR = re.compile(r"--executor\s+\S+")
_KNOWN: dict[str, type[Cluster]] = {"slurm": Slurm, "aws-batch": AwsBatch}


def install(decisions: ClusterDecisions) -> None:
    """Replace the executors that Snakemake's registry knows in this process. Call it once."""
    plugins = ExecutorPluginRegistry().plugins
    plugin = plugins[decisions.executor]
    if issubclass(plugin.executor, RemoteExecutor):
        cluster = _KNOWN.get(decisions.executor, Cluster)()
        cluster.repair(decisions)
        members = {"_decisions": decisions, "_cluster": cluster}
        plugin.executor = type("Executor", (_Mirrored, plugin.executor), members)
    # Rules that the workflow calls local run on this machine, and are reported as ever.
    plugins["local"].executor = plugins["prefect"].executor


class _Mirrored:
    """Mixed in before the executor of a plugin."""

    _decisions: ClusterDecisions
    _cluster: Cluster

    def __init__(self, workflow: Any, logger: Any) -> None:
        self._records = Records(Path(emitter.directory, ATTEMPT_LOGS))
        self._records.clear()
        self._attempts = OpenAttempts(self._records)
        self._submission = Submission(self._decisions)
        self._wake_at: list[float] = []
        self._has_lost = False  # whether the queue no longer holds a job that has not ended
        self._next_queue = 0.0
        self._asked_at = 0.0
        self._plan = plan_of(workflow, workflow.dag)
        # This starts the thread that asks the cluster.
        super().__init__(workflow, logger)  # type: ignore[call-arg]  # of the plugin

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # of the plugin
        if self._plan.is_stale:
            self._plan.report()

    # Nodes

    @property
    def _shares_files(self) -> bool:
        """Whether nodes have this machine's environments; others have a Snakemake of their own."""
        return bool(super().get_python_executable() == sys.executable)  # type: ignore[misc]  # of the plugin

    def additional_general_args(self) -> Any:
        """The node's Snakemake runs rule jobs with our local executor, which records them."""
        theirs = super().additional_general_args()  # type: ignore[misc]  # of the plugin
        if not self._shares_files:
            return theirs
        if not isinstance(theirs, str):
            theirs = " ".join(theirs)
        ours, found = _EXECUTOR.subn("--executor prefect", theirs)
        return ours if found else f"{theirs} --executor prefect"

    def get_python_executable(self) -> str:
        """With our own start of Snakemake."""
        theirs: str = super().get_python_executable()  # type: ignore[misc]  # of the plugin
        if not self._shares_files:
            return theirs
        program = [theirs, str(Path(__file__).with_name("node.py")), str(self._records.directory)]
        return shlex.join(program)

    # Submission

    def run_jobs(self, jobs: list[Any]) -> None:
        if self._plan.is_stale or not self._plan.holds(jobs):
            self._plan.report()
        for unit in jobs:
            self._submission.prepare(unit)
            self._attempts.add(unit)
        super().run_jobs(jobs)  # type: ignore[misc]  # of the plugin

    def run_job(self, job: Any) -> None:
        with self._submission.begun() as may_submit:
            if not may_submit:
                self.report_job_error(SubmittedJobInfo(job), msg=_CANCELLED)
                return
            super().run_job(job)  # type: ignore[misc]  # of the plugin

    def report_job_submission(self, job_info: SubmittedJobInfo, register_job: bool = True) -> None:
        self._submission.note(job_info.external_jobid)
        for attempt in self._attempts.of(job_info.job):
            attempt.info = job_info
            self._tell_submission(attempt)
        super().report_job_submission(job_info, register_job=register_job)  # type: ignore[misc]  # of the plugin

    def _tell_submission(self, attempt: Attempt) -> None:
        emitter.emit(
            AttemptSubmitted(
                time=time.time(),
                job_id=attempt.job.jobid,
                attempt=attempt.job.attempt,
                executor=self._decisions.executor,
                external_id=attempt.external_id,
                queue_reason=attempt.queue_reason,
            )
        )

    # Looking

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        self._look()
        active_jobs = [info for info in active_jobs if self._attempts.is_open(info)]
        if self._submission.is_stopped:  # all of them were cancelled
            for info in active_jobs:
                yield info
            return
        self._asked_at = time.monotonic()
        given_back = set()
        async for info in super().check_active_jobs(active_jobs):  # type: ignore[misc]  # of the plugin
            given_back.add(id(info))
            yield info
        for info in active_jobs:
            if id(info) not in given_back and self._attempts.is_open(info):
                yield info  # the plugin has lost it: it would never ask for it again

    async def sleep(self) -> None:
        """As long as the plugin wants, unless a node has recorded an end."""
        until = time.monotonic() + self.next_seconds_between_status_checks  # type: ignore[attr-defined]  # of the plugin
        while self.wait and time.monotonic() < until:  # type: ignore[attr-defined]  # of the plugin
            await asyncio.sleep(LOOK_SECONDS)
            self._look()
            if not self._submission.is_stopped and time.monotonic() >= self._next_queue:
                await asyncio.to_thread(self._look_at_queue)
                self._next_queue = time.monotonic() + QUEUE_SECONDS
            if self._must_ask():
                return

    def _must_ask(self) -> bool:
        """Whether the plugin has to ask its cluster now, because something seems to have ended."""
        now = time.monotonic()
        is_due = self._has_lost or (self._wake_at and now >= self._wake_at[0])
        pause = len(self._attempts.submitted()) / _UNITS_PER_SECOND
        if not is_due or now < self._asked_at + min(max(pause, _FEWEST_SECONDS), _MOST_SECONDS):
            return False
        self._has_lost, self._wake_at = False, self._wake_at[1:]
        return True

    def _look(self) -> None:
        """Read what nodes have recorded."""
        started, has_end = self._attempts.take_records()
        for attempt in started:
            self._tell_start(attempt)
        if not self._attempts.is_end_near():
            self._wake_at = []
        elif has_end:
            now = time.monotonic()
            self._wake_at = [now + seconds for seconds in accumulate(WAKE_SECONDS)]

    def _look_at_queue(self) -> None:
        """Report why jobs wait; let the plugin ask for jobs that the queue no longer holds."""
        infos = self._attempts.submitted()
        held = self._cluster.queue(getattr(self, "run_uuid", None)) if infos else None
        if held is None:
            return
        for attempt in self._attempts.waiting():
            reason = held.get(attempt.external_id or "", attempt.queue_reason)
            if reason != attempt.queue_reason:
                attempt.queue_reason = reason
                self._tell_submission(attempt)
        self._has_lost = any(info.external_jobid not in held for info in infos)

    def _tell_start(self, attempt: Attempt) -> None:
        started = attempt.started or {}
        log = str(self._records.log_of(attempt.job))
        self._plan.begun.add(attempt.job.jobid)
        event = attempt_started(attempt.job, started["started_at"], log)
        emitter.emit(replace(event, host=started.get("host"), external_id=attempt.external_id))

    # Ends

    def report_job_success(self, job_info: SubmittedJobInfo) -> None:
        if self._attempts.report(job_info):
            super().report_job_success(job_info)  # type: ignore[misc]  # of the plugin

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        if not self._attempts.report(job_info):
            return
        for attempt in self._attempts.of(job_info.job):
            attempt.message = (msg or "").strip()
            attempt.logs = tuple(log for log in kwargs.get("aux_logs") or () if log)
        super().report_job_error(job_info, msg=msg, **kwargs)  # type: ignore[misc]  # of the plugin

    def handle_job_success(self, job: Any) -> None:
        super().handle_job_success(job)  # type: ignore[misc]  # of the plugin
        for attempt in self._finished(job):
            if attempt.job.rule.is_checkpoint:
                self._plan.is_stale = True
                self._plan.grown_by.add(attempt.job.jobid)
            self._tell_end(attempt, Outcome.SUCCEEDED)

    def handle_job_error(self, job: Any) -> None:
        super().handle_job_error(job)  # type: ignore[misc]  # of the plugin
        attempts = self._finished(job)
        will_retry = job.restart_times > job.attempt - 1 and not self._submission.is_stopped
        reason = self._why_ended(attempts)
        has_culprit = any(attempt.has_failed for attempt in attempts)
        for attempt in attempts:
            if reason:  # whatever the node has seen, the command did not end by itself
                attempt.ended = {**(attempt.ended or {}), "exit_code": None, "message": reason}
            elif has_culprit and not attempt.has_failed:
                attempt.ended = {**(attempt.ended or {}), "message": _FAILED_WITH_ITS_GROUP}
            elif (error := sys.exception()) is not None and not has_culprit:  # Snakemake rejects its outputs
                attempt.ended = {**(attempt.ended or {}), "message": str(error)}
            self._tell_end(attempt, Outcome.FAILED, will_retry=will_retry)
        if will_retry:
            self.dag._running.discard(job)  # type: ignore[attr-defined]  # as our local executor does

    def _finished(self, unit: Any) -> list[Attempt]:
        """The attempts of a unit that has ended, with all that their node has recorded."""
        self._look()
        return self._attempts.remove(unit)

    def _why_ended(self, attempts: list[Attempt]) -> str:
        external_id = attempts[0].external_id if attempts else None
        if external_id is None or self._submission.is_stopped:
            return ""
        return self._cluster.why_ended(external_id)

    def _tell_end(self, attempt: Attempt, outcome: Outcome, *, will_retry: bool = False) -> None:
        now, ended = time.time(), attempt.ended or {}
        if attempt.started is None and "started_at" in ended:
            attempt.started = ended
            self._tell_start(attempt)
        if "finished_at" not in ended:
            self._keep_cluster_logs(attempt)
        emitter.emit(
            AttemptFinished(
                time=now,
                job_id=attempt.job.jobid,
                attempt=attempt.job.attempt,
                outcome=outcome,
                started_at=(attempt.started or {}).get("started_at") or now,
                finished_at=ended.get("finished_at") or now,
                will_retry=will_retry,
                exit_code=ended.get("exit_code"),
                exception=ended.get("exception", ""),
                message=ended.get("message") or attempt.message,
                cpu_seconds=ended.get("cpu_seconds"),
                peak_memory_bytes=ended.get("peak_memory_bytes"),
            )
        )

    def _keep_cluster_logs(self, attempt: Attempt) -> None:
        """Add what the cluster itself has written, where the node could not record the end."""
        for log in attempt.logs:
            try:
                text = Path(log).read_text(errors="replace")[-_LONGEST_CLUSTER_LOG:]
                with self._records.log_of(attempt.job).open("a") as file:
                    file.write(text)
            except OSError:
                continue

    # Stopping

    def stop(self) -> None:
        """Cancel everything, and return when the cluster holds nothing of it: then Snakemake can end."""
        self._submission.stop()
        infos = self._attempts.submitted()
        self._cancel(infos)
        self._wait_until_gone()
        self._look()
        for info in infos:
            self.report_job_error(info, msg=_CANCELLED)

    def cancel(self) -> None:
        """What Snakemake does when it gives up over an exception."""
        self.stop()
        self.shutdown()

    def shutdown(self) -> None:
        if infos := self._attempts.submitted():  # Snakemake also shuts down after an error of the executor
            self._submission.stop()
            self._cancel(infos)
        super().shutdown()  # type: ignore[misc]  # of the plugin
        if self._submission.is_stopped:
            self._wait_until_gone()
        if self._plan.is_stale:
            self._plan.report()

    def _cancel(self, infos: list[SubmittedJobInfo]) -> None:
        if not infos:
            return
        try:
            self.cancel_jobs(infos)  # type: ignore[attr-defined]  # of the plugin
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises, the others must be cancelled
            self.logger.warning(f"The cluster did not cancel its jobs: {error}")  # type: ignore[attr-defined]  # of the plugin

    def _wait_until_gone(self) -> None:
        self._cluster.wait_until_gone(getattr(self, "run_uuid", None), self._decisions.cancel_seconds)
