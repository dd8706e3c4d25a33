"""Ends rule jobs on AWS Batch whose job has ended: its head was killed before it could cancel them."""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import boto3
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from flows.contract.executors import AWS_BATCH, ClusterExecutor

_log = logging.getLogger(__name__)

_ALIVE = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
_PAGE = 200
_UUID_LENGTH = 36
_REASON = "The job that it belongs to has ended."


class StrayRuleJobs:
    """Rule jobs in the queues of the groups; the name of each begins with the id of its job."""

    def __init__(self, executors: Collection[ClusterExecutor]) -> None:
        self._queues = {
            str(executor.settings["job_queue"])
            for executor in executors
            if executor.executor == AWS_BATCH and executor.job_definition is not None
        }
        self._batch: Any = boto3.client("batch") if self._queues else None

    async def end(self, client: PrefectClient) -> int:
        """How many there were. Jobs that this Prefect does not know are left alone.

        Raises httpx's and botocore's errors.
        """
        if not self._queues:
            return 0
        held = await asyncio.to_thread(self._held)
        ended = await _ended(client, sorted(set(held.values())))
        strays = [rule_job for rule_job, job_id in held.items() if job_id in ended]
        for rule_job in strays:
            await asyncio.to_thread(self._batch.terminate_job, jobId=rule_job, reason=_REASON)
            fields = {"job_id": str(held[rule_job]), "rule_job": rule_job}
            _log.warning("Ended a rule job on AWS Batch: its job has ended.", extra=fields)
        return len(strays)

    def _held(self) -> Mapping[str, UUID]:
        """The job of each rule job that has not ended."""
        pages = (
            page
            for queue in self._queues
            for status in _ALIVE
            for page in self._batch.get_paginator("list_jobs").paginate(jobQueue=queue, jobStatus=status)
        )
        jobs = {each["jobId"]: _job_of(each["jobName"]) for page in pages for each in page["jobSummaryList"]}
        return {rule_job: job_id for rule_job, job_id in jobs.items() if job_id is not None}


async def _ended(client: PrefectClient, ids: list[UUID]) -> set[UUID]:
    found: set[UUID] = set()
    for start in range(0, len(ids), _PAGE):
        some = FlowRunFilter(id=FlowRunFilterId(any_=ids[start : start + _PAGE]))
        for flow_run in await client.read_flow_runs(flow_run_filter=some, limit=_PAGE):
            if flow_run.state is not None and flow_run.state.is_final():
                found.add(flow_run.id)
    return found


def _job_of(name: str) -> UUID | None:
    """None if somebody else has submitted it."""
    try:
        return UUID(name[:_UUID_LENGTH])
    except ValueError:
        return None
