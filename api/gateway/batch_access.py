"""Credentials of AWS Batch for the head of one job: AWS's STS makes them of the role of its group.

A policy limits them to the rule jobs of this job, and to its files in the storage of the group.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from api.gateway.role_sessions import RoleSessions
from flows.contract.executors import RULE_JOB_TAG, ClusterExecutor

_KEPT = "kept"
"""Snakemake's plugin for S3 removes a bucket that has become empty. With this object, none does."""

_OBJECTS = [
    *("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
    *("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
]


def session_policy(job_id: UUID, cluster: ClusterExecutor) -> str:
    """What the credentials may do: submit, watch and end rule jobs of this job, and use its files."""
    queue, address = str(cluster.settings["job_queue"]), _address_of(cluster)
    here = queue.rpartition(":job-queue/")[0]
    definition = f"{here}:job-definition/{str(cluster.job_definition).partition(':')[0]}"
    bucket = f"arn:{queue.split(':')[1]}:s3:::{address.netloc}"
    as_new = {"StringEquals": {f"aws:RequestTag/{RULE_JOB_TAG}": str(job_id)}}
    of_job = {"StringEquals": {f"aws:ResourceTag/{RULE_JOB_TAG}": str(job_id)}}
    jobs = f"{here}:job/*"
    statements = [
        _allow(["batch:SubmitJob"], [queue, definition, f"{definition}:*"], as_new),
        _allow(["batch:TagResource"], [jobs], as_new),
        _allow(["batch:TerminateJob"], [jobs], of_job),
        _allow(["batch:DescribeJobs"], ["*"]),
        _allow(_OBJECTS, [f"{bucket}{address.path.rstrip('/')}/*"]),
        # For the whole bucket: the plugin asks whether there is one, and whether it is empty.
        _allow(["s3:ListBucket"], [bucket]),
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _allow(actions: list[str], resources: list[str], condition: object = None) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return statement if condition is None else {**statement, "Condition": condition}


class BatchAccess:
    """Blocks: call it in a thread. Raises botocore's errors."""

    def __init__(
        self, roles: Mapping[str, str], clusters: Mapping[str, ClusterExecutor], seconds: int
    ) -> None:
        """`roles` by group; groups whose cluster has no job definition and storage get no credentials."""
        self._sessions = RoleSessions()
        self._roles = {group: role for group, role in roles.items() if _is_complete(clusters.get(group))}
        self._clusters = clusters
        self._seconds = seconds

    def serves(self, group: str) -> bool:
        return group in self._roles

    def credentials(self, job_id: UUID, first_job: UUID, group: str) -> dict[str, Any]:
        """As botocore's `credential_process` reads them; the files are those of `first_job`."""
        cluster = self._clusters[group].for_job(first_job)
        made = self._sessions.begin(
            self._roles[group], job_id, session_policy(job_id, cluster), self._seconds
        )
        address = _address_of(cluster)
        self._sessions.touch(made, address.netloc, f"{address.path}/{_KEPT}".lstrip("/"))
        return {
            "Version": 1,
            "AccessKeyId": made["AccessKeyId"],
            "SecretAccessKey": made["SecretAccessKey"],
            "SessionToken": made["SessionToken"],
            "Expiration": made["Expiration"].isoformat(),
        }


def _address_of(cluster: ClusterExecutor) -> SplitResult:
    storage = cluster.default_storage
    return urlsplit("" if storage is None else storage.prefix)


def _is_complete(cluster: ClusterExecutor | None) -> bool:
    return (
        cluster is not None
        and cluster.job_definition is not None
        and cluster.default_storage is not None
        and "job_queue" in cluster.settings
    )
