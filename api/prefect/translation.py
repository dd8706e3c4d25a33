"""Translates Prefect's flow runs, task runs and logs into `api.web.schemas`. Pure."""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from prefect.client.schemas.objects import Log, StateType, TaskRun
from pydantic import ValidationError

from api.prefect.rows import FlowRunRow, RuleJobRow
from api.web.schemas import Job, JobError, JobLinks, LogLine, Progress, RegisteredSource, RuleJob
from api.web.statuses import JobStatus, job_status, rule_job_status
from flows.contract.documentation import with_reference
from flows.contract.spec import TAG_SEPARATOR, EngineName, ErrorKind, Label, RuleJobRecord

_NO_MESSAGE = "Prefect has no message about it."
_CORRECT_IT = "Read the log of the job, correct the workflow or its configuration, and submit it again."
_RESUME_IT = "Resume the job. If it fails again, read the log of the worker."
_RUN_IT_AGAIN = "Run Snakemake again where it ran: it does what is incomplete."


def job_from(flow_run: FlowRunRow, group: str, prefect_ui_url: str, waiting: str | None = None) -> Job:
    """`waiting` is why the pending jobs of the group wait, if the group is the reason."""
    status = job_status(flow_run.state_type)
    return Job(
        id=flow_run.id,
        name=flow_run.name,
        group=group,
        status=status,
        waiting=waiting if status is JobStatus.PENDING else None,
        phase=_text(flow_run.labels, Label.PHASE) or None if status is JobStatus.RUNNING else None,
        workflow=_registered(flow_run.labels),
        engine=str(flow_run.parameters.get("engine", EngineName.SNAKEMAKE)),
        snakemake_version=_text(flow_run.labels, Label.SNAKEMAKE_VERSION),
        dry_run=flow_run.parameters.get("dry_run") is True,
        attached=Label.ATTACHED in flow_run.labels,
        place=_text(flow_run.labels, Label.ATTACHED),
        commit=_text(flow_run.labels, Label.WORKFLOW_COMMIT),
        created_at=flow_run.created,
        updated_at=_updated(flow_run),
        started_at=flow_run.start_time,
        finished_at=flow_run.end_time,
        progress=Progress(
            done=_count(flow_run.labels, Label.PROGRESS_DONE),
            total=_count(flow_run.labels, Label.PROGRESS_TOTAL),
        ),
        error=job_error(flow_run),
        tags=tags_from(flow_run.tags),
        resumes=_job_id(flow_run.labels, Label.RESUMES),
        changes=[name for name in (_text(flow_run.labels, Label.CHANGES) or "").split(",") if name],
        resumed_by=_job_id(flow_run.labels, Label.RESUMED_BY),
        links=JobLinks.of(flow_run.id, prefect_ui_url),
    ).in_state(flow_run.state_type)


def job_error(flow_run: FlowRunRow) -> JobError | None:
    """Why the job failed; none if it did not.

    A flow that ends by itself writes the reason into labels; one that was killed could not.
    """
    match flow_run.state_type:
        case StateType.FAILED:
            kind, resolution = ErrorKind.WORKFLOW, _CORRECT_IT
        case StateType.CRASHED:
            kind, resolution = ErrorKind.SYSTEM, _RESUME_IT
        case _:
            return None
    message = (flow_run.state.message if flow_run.state else None) or _NO_MESSAGE
    section: str = kind
    if kind is ErrorKind.SYSTEM and Label.ATTACHED in flow_run.labels:
        resolution, section = _RUN_IT_AGAIN, "attached-runs"
    # Labels of another kind are from an earlier run of the same job.
    labels = flow_run.labels if flow_run.labels.get(Label.ERROR_KIND) == kind else {}
    return JobError(
        kind=kind,
        rule=_text(labels, Label.ERROR_RULE),
        message=_text(labels, Label.ERROR_MESSAGE) or message,
        resolution=_text(labels, Label.ERROR_RESOLUTION) or with_reference(resolution, section),
    )


def rule_job_from(task_run: TaskRun | RuleJobRow) -> RuleJob:
    record = _record(task_run)
    return RuleJob(
        id=task_run.id,
        name=task_run.name,
        rule=record.rule,
        wildcards=record.wildcards,
        status=rule_job_status(task_run.state_type, task_run.state_name),
        attempts=task_run.run_count,
        # Prefect needs a start time to draw a rule job, so one that never ran has one too.
        started_at=task_run.start_time if task_run.run_count else None,
        finished_at=task_run.end_time,
        threads=record.threads,
        resources=record.resources,
        reason=record.reason,
        shell=record.shell,
        inputs=list(record.inputs),
        outputs=list(record.outputs),
        error=record.error,
        cpu_seconds=record.cpu_seconds,
        peak_memory_bytes=record.peak_memory_bytes,
        external_id=record.external_id,
        host=record.host,
        waiting=record.waiting,
    )


def log_line_from(log: Log) -> LogLine:
    return LogLine(
        timestamp=log.timestamp,
        level=logging.getLevelName(log.level),
        message=log.message,
        task_id=log.task_run_id,
    )


def tags_from(prefect_tags: Iterable[str]) -> dict[str, str]:
    """A job's tags. A tag that was set in Prefect may have no separator: its value is empty."""
    pairs = (tag.partition(TAG_SEPARATOR) for tag in sorted(prefect_tags))
    return {key: value for key, _, value in pairs}


def _updated(flow_run: FlowRunRow) -> datetime | None:
    """Not before the creation: the `updated` of a new flow run is milliseconds earlier."""
    if flow_run.updated is None or flow_run.created is None:
        return flow_run.updated
    return max(flow_run.updated, flow_run.created)


def _record(task_run: TaskRun | RuleJobRow) -> RuleJobRecord:
    """The record that the worker wrote; only the rule, if the record has another version."""
    try:
        return RuleJobRecord.model_validate_json(str(task_run.labels[Label.RULE_JOB]))
    except (KeyError, ValidationError):
        return RuleJobRecord(rule=task_run.name.partition("[")[0])


def _text(labels: Mapping[str, object], label: Label) -> str | None:
    value = labels.get(label)
    return None if value is None else str(value)


def _registered(labels: Mapping[str, object]) -> RegisteredSource | None:
    name = _text(labels, Label.WORKFLOW_NAME)
    return (
        None if name is None else RegisteredSource(name=name, version=_text(labels, Label.WORKFLOW_VERSION))
    )


def _job_id(labels: Mapping[str, object], label: Label) -> UUID | None:
    text = _text(labels, label)
    return UUID(text) if text else None


def _count(labels: Mapping[str, object], label: Label) -> int:
    value = labels.get(label, 0)
    return max(0, value) if isinstance(value, int) else 0
