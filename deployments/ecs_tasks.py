"""Reads and stops the ECS tasks of jobs, with a few requests for all of them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import UUID

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from deployments.ecs import ClusterSettings
from deployments.verdicts import Task

_FLOW_RUN_TAG = "prefect.io/flow-run-id"
"""The tag that Prefect's worker sets on its tasks (`prefect.workers.base`)."""

_DESCRIBED_AT_ONCE = 100
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html"""

_ARN = re.compile(r"arn:[\w-]+:ecs:(?P<region>[\w-]+):\d*:task/(?P<cluster>[\w-]+)/[\w-]+")

# ECS throttles above some requests a second: the client slows down.
_RETRYING = Config(retries={"mode": "adaptive", "total_max_attempts": 10})


class EcsTasks:
    """The tasks of one family on one cluster. Every method blocks, and may raise botocore's errors."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._ecs = boto3.client("ecs", config=_RETRYING)
        self._here = (self._ecs.meta.region_name, settings.cluster.rpartition("/")[2])

    def has(self, arn: str) -> bool:
        """Whether it is the ARN of a task of this cluster. ECS rejects a request with any other."""
        task = _ARN.fullmatch(arn)
        return task is not None and task.group("region", "cluster") == self._here

    def is_elsewhere(self, arn: str) -> bool:
        """Whether it is the ARN of a task of another cluster."""
        return _ARN.fullmatch(arn) is not None and not self.has(arn)

    def read(self, also: Collection[str]) -> Sequence[Task]:
        """All tasks that run or start, and those of the ARNs `also` of this cluster that ECS still knows."""
        pages = self._ecs.get_paginator("list_tasks").paginate(
            cluster=self._settings.cluster, family=self._settings.task_definition, desiredStatus="RUNNING"
        )
        arns = dict.fromkeys([*(arn for page in pages for arn in page["taskArns"]), *also])
        return [task for some in _batches(arns) for task in self._describe(some)]

    def stop(self, arn: str, reason: str) -> None:
        """Stop a task. One that has stopped already, or is unknown, is left alone."""
        try:
            self._ecs.stop_task(cluster=self._settings.cluster, task=arn, reason=reason[:1024])
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidParameterException":
                raise

    def _describe(self, arns: Sequence[str]) -> Iterator[Task]:
        answer = self._ecs.describe_tasks(cluster=self._settings.cluster, tasks=arns, include=["TAGS"])
        return map(task_from, answer["tasks"])


def task_from(described: Mapping[str, Any]) -> Task:
    """A task from the answer of DescribeTasks."""
    tags = {tag["key"]: tag["value"] for tag in described.get("tags", [])}
    exit_codes = [container.get("exitCode") for container in described.get("containers", [])]
    has_stopped = described["lastStatus"] == "STOPPED"
    return Task(
        arn=described["taskArn"],
        flow_run_id=_id_from(tags.get(_FLOW_RUN_TAG, "")),
        created_at=described["createdAt"],
        stopped_at=described.get("stoppedAt", datetime.now(UTC)) if has_stopped else None,
        is_stopping=described.get("desiredStatus") == "STOPPED",
        stop_code=described.get("stopCode", ""),
        reason=described.get("stoppedReason", ""),
        exit_code=next((code for code in exit_codes if code is not None), None),
    )


def _id_from(tag: str) -> UUID | None:
    """None if the tag is not an id: a task that somebody else runs may have any tag."""
    try:
        return UUID(tag)
    except ValueError:
        return None


def _batches(arns: Collection[str]) -> Iterator[list[str]]:
    remaining = iter(arns)
    while batch := list(islice(remaining, _DESCRIBED_AT_ONCE)):
        yield batch
