"""Translates the filters of a listing into Prefect's. Pure."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTaskRunId,
    LogFilterTimestamp,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterState,
    TaskRunFilterStateType,
    TaskRunFilterTags,
)

from api.web.cursors import JobPosition
from api.web.queries import JobQuery, RuleJobQuery
from api.web.statuses import state_types_of_jobs, state_types_of_rule_jobs


def flow_run_filter(
    query: JobQuery, deployment_ids: Collection[UUID], after: JobPosition | None
) -> FlowRunFilter:
    """Filters by deployment rather than by flow: Prefect has an index for it and needs no join."""
    flow_runs = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=list(deployment_ids)))
    if query.status:
        state_types = state_types_of_jobs(query.status)
        flow_runs.state = FlowRunFilterState(type=FlowRunFilterStateType(any_=state_types))
    if query.name is not None:
        flow_runs.name = FlowRunFilterName(any_=[query.name])
    if query.tag:
        flow_runs.tags = FlowRunFilterTags(all_=list(query.tag))
    if after is not None:
        flow_runs.expected_start_time = FlowRunFilterExpectedStartTime.model_validate({"before_": after.at})
        flow_runs.id = FlowRunFilterId(not_any_=list(after.given))
    return flow_runs


def task_run_filter(job_id: UUID, query: RuleJobQuery) -> TaskRunFilter:
    """Also lets through some that don't match: Prefect can't distinguish skipped from completed here."""
    task_runs = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[job_id]))
    if query.status:
        state_types = state_types_of_rule_jobs(query.status)
        task_runs.state = TaskRunFilterState(type=TaskRunFilterStateType(any_=state_types))
    if query.rule is not None:
        task_runs.tags = TaskRunFilterTags(all_=[query.rule])
    return task_runs


def log_filter(job_id: UUID, task_id: UUID | None, start: datetime | None) -> LogFilter:
    logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[job_id]))
    if task_id is not None:
        logs.task_run_id = LogFilterTaskRunId(any_=[task_id])
    if start is not None:
        logs.timestamp = LogFilterTimestamp.model_validate({"after_": start})
    return logs
