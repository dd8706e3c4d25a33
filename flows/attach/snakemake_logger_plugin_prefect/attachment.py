"""Follows one Snakemake through its log records, in Snakemake's own threads.

Whatever goes wrong here ends the record with one warning, and never the workflow. All requests are made
by another thread (`sending.py`).
"""

import atexit
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from logging import LogRecord
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

from .plan import (
    Plan,
    absolute,
    is_main,
    job_on_stack,
    members_of,
    resources_of,
    will_be_retried,
    workflow_on_stack,
)
from .rule_job import Attempt, Planned
from .run import Run
from .saying import warn

SNAKEMAKES_LOGGER = "snakemake.logging"
STOPS = (
    "Terminating processes on user request, this might take some time.",
    "Will exit after finishing currently running jobs (scheduler).",
)
"""What Snakemake logs when it was interrupted, and when it got SIGTERM."""

_OF_RULE_JOBS = frozenset(LogEvent) - {LogEvent.ERROR, LogEvent.RUN_INFO}
_NOISE = ("Select jobs to execute", "Execute ", "Complete log")
_AT_LEAST_ONE = "At least one job did not complete successfully."
_EXIT_STATUS = re.compile(r"exit (?:status|code) (-?\d+)")
_SUBMITTED = re.compile(r"\bjob (\d+) (?:has been submitted )?with \w+ jobid '?([\w.-]+)", re.IGNORECASE)
"""As executor plugins for clusters say it: `external jobid '17'`, `SLURM jobid 17`."""
_SIGNAL = re.compile(r"died with <Signals\.\w+: (\d+)>")
"""As `subprocess.CalledProcessError` says it."""


class Attachment:
    """A filter of Snakemake's logger, which lets every record pass.

    Handlers get records from a queue. A filter is called where a record is made, so it knows the thread
    and what is on its stack.
    """

    def __init__(self, run: Run, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """`begin` starts the sending; `end` returns when all is sent, or it can't be."""
        self._run, self._begin, self._end = run, begin, end
        self._plan: Plan | None = None
        self._jobs: dict[int, Any] = {}
        self._errors: dict[int, str] = {}
        """By thread: an error of which Snakemake has not yet said which rule job has it."""
        self._is_executing = self._has_begun = self._is_over = self._is_closed = self._is_stale = False
        self._process = os.getpid()
        self._lock = threading.RLock()
        logging.getLogger(SNAKEMAKES_LOGGER).addFilter(self)
        atexit.register(self.close)  # before 9.27, nobody else calls it

    def filter(self, record: LogRecord) -> bool:
        with self._lock:
            if not self._is_over and os.getpid() == self._process:
                self._try_to_follow(record)
        return True

    def close(self) -> None:
        """Report the end, in Snakemake's main thread."""
        logging.getLogger(SNAKEMAKES_LOGGER).removeFilter(self)
        atexit.unregister(self.close)
        if os.getpid() == self._process and self._has_begun and not self._is_closed:
            self._is_closed = self._is_over = True
            if self._is_stale or not self._jobs:  # a checkpoint was last, or nothing was to be done
                self._read_plan(time.time())
            for text in self._errors.values():
                self._run.fail(text)
            self._end()

    def _try_to_follow(self, record: LogRecord) -> None:
        try:
            self._follow(record, getattr(record, "event", None))
        except Exception as error:  # noqa: BLE001 - the workflow goes on, whatever it is
            self._is_over = True
            reason = f"The logger can't follow this Snakemake ({type(error).__name__}: {error})."
            warn(reason)
            self._run.lose(reason)

    def _follow(self, record: LogRecord, event: Any) -> None:
        if not self._has_begun and not self._begins(event):
            return
        match event:
            case LogEvent.RUN_INFO:
                self._read_plan(record.created)
            case LogEvent.JOB_STARTED:
                if self._is_stale:
                    self._read_plan(record.created)
            case LogEvent.JOB_INFO:
                self._start(record)
            case LogEvent.JOB_FINISHED:
                self._finish(record)
            case LogEvent.JOB_ERROR:
                error = self._errors.pop(threading.get_ident(), None)
                self._fail(record.jobid, error or record.rule_msg or "", record.created)  # type: ignore[attr-defined]  # an extra
            case LogEvent.ERROR:
                self._meet_error(record)
        self._log(record, event)

    def _begins(self, event: Any) -> bool:
        """Whether this is a run: the workflow is being executed, or can't even be read.

        Otherwise, Snakemake only lists or cleans something.
        """
        self._is_executing |= event == LogEvent.WORKFLOW_STARTED
        workflow = workflow_on_stack() if self._is_executing else None
        if workflow is not None and not is_main(workflow):
            self._is_over = True  # the Snakemake of one rule job
        elif workflow is not None or event in (LogEvent.ERROR, LogEvent.JOB_INFO):
            self._plan = None if workflow is None else Plan(workflow)
            self._has_begun = True
            self._begin()
        return self._has_begun

    def _read_plan(self, now: float) -> None:
        """Without it, rule jobs are shown when they begin."""
        if self._plan is None:
            return
        try:
            self._run.hide(self._plan.envvars)
            self._run.plan(self._plan.read(), now)
            self._jobs, self._is_stale = self._plan.jobs(), False
        except Exception as error:  # noqa: BLE001 - there is no graph yet, or an unknown one
            self._plan = None
            self._run.log(logging.DEBUG, f"The plan can't be read: {error}", now)

    def _start(self, record: Any) -> None:
        job_id = int(record.jobid)
        if job_id not in self._run.rule_jobs:
            self._read_plan(record.created)
        if job_id not in self._run.rule_jobs:
            self._run.add(self._planned(record))
        job = self._jobs.get(job_id)
        attempt = Attempt(
            time=record.created,
            number=1 if job is None else job.attempt,
            threads=record.threads,
            resources=resources_of(record.resources),
            reason=str(record.reason),
            shell=getattr(record, "shellcmd", None) or (job.shellcmd if job is not None else None),
            log_files=absolute(record.log),
        )
        self._run.start(job_id, attempt)

    def _planned(self, record: Any) -> Planned:
        """A rule job as its record has it, where the plan can't be read, with edges by its inputs."""
        return Planned(
            job_id=int(record.jobid),
            rule=record.rule_name,
            wildcards={name: str(value) for name, value in record.wildcards.items()},
            depends_on=self._run.rule_jobs.makers(record.input),
            inputs=tuple(map(str, record.input)),
            outputs=tuple(map(str, record.output)),
        )

    def _finish(self, record: Any) -> None:
        self._run.succeed(int(record.job_id), record.created)
        job = self._jobs.get(int(record.job_id))
        if job is not None and job.rule.is_checkpoint and self._plan is not None:
            # The graph grows right after this record (`JobScheduler._finish_jobs`).
            self._is_stale = True
            self._plan.grown_by.add(int(record.job_id))

    def _meet_error(self, record: LogRecord) -> None:
        text = record.getMessage() if record.msg else ""
        rejected = job_on_stack()
        if rejected is not None:
            for member in members_of(rejected):
                self._fail(member.jobid, text, record.created)
        elif _AT_LEAST_ONE not in text:
            self._errors[threading.get_ident()] = text

    def _fail(self, job_id: Any, text: str, now: float) -> None:
        job = self._jobs.get(int(job_id))
        will_retry = job is not None and will_be_retried(job)
        self._run.fail_rule_job(int(job_id), now, _reason(text), text, will_retry=will_retry)

    def _log(self, record: LogRecord, event: Any) -> None:
        text = record.getMessage() if record.msg else ""
        if text.startswith(STOPS):
            self._run.stop()
        if event is None and (found := _SUBMITTED.search(text)):
            self._run.submit(int(found[1]), found[2])
        if event not in _OF_RULE_JOBS and text.strip() and not text.startswith(_NOISE):
            self._run.log(record.levelno, text, record.created)


def _reason(text: str) -> str:
    """One sentence: the exit code if there is one, else Snakemake's message."""
    if found := _SIGNAL.search(text):
        return f"Its command was killed by signal {found[1]}."
    if found := _EXIT_STATUS.search(text):
        return f"Its command ended with exit code {found[1]}."
    return text.strip() or "Snakemake does not say why; its output does."
