"""Reports of Snakemake's own executors that run no command: `--dry-run` and `--touch`."""

import time
from typing import Any

from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import AttemptFinished, Outcome
from flows.snakemake_process.planning import PlanReport, attempt_started, rule_jobs_of


def install() -> None:
    """Let both executors report. Call it once."""
    plugins = ExecutorPluginRegistry().plugins
    plugins["dryrun"].executor = _reporting_the_plan(plugins["dryrun"].executor)
    plugins["touch"].executor = _reporting_ends(_reporting_the_plan(plugins["touch"].executor))


def _reporting_the_plan(executor: Any) -> Any:
    class Planning(executor):  # type: ignore[misc]  # untyped base
        def __init__(self, workflow: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(workflow, *args, **kwargs)
            PlanReport(workflow, self.dag).report()

    return Planning


def _reporting_ends(executor: Any) -> Any:
    class Reporting(executor):  # type: ignore[misc]  # untyped base
        def handle_job_success(self, job: Any) -> None:
            super().handle_job_success(job)
            now = time.time()
            for rule_job in rule_jobs_of(job):
                emitter.emit(attempt_started(rule_job, now, None))
                emitter.emit(
                    AttemptFinished(
                        time=now,
                        job_id=rule_job.jobid,
                        attempt=rule_job.attempt,
                        outcome=Outcome.SUCCEEDED,
                        started_at=now,
                        finished_at=now,
                        will_retry=False,
                    )
                )

    return Reporting
