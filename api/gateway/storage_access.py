"""Credentials of the bucket for the task of one job: AWS's STS makes them of a role, limited by a policy."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from api.gateway.role_sessions import RoleSessions
from flows.contract.storage import bundle_key, job_key

_SECONDS = 3600
"""The longest for a role that is assumed with the credentials of another."""

_WRITE = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]


@dataclass(frozen=True, slots=True)
class Files:
    """What a job needs of the storage."""

    job_id: UUID
    resumed: UUID | None = None
    """The job that it continues."""
    bundle: str | None = None


def session_policy(files: Files, storage_url: str, partition: str) -> str:
    """What the credentials may do: write the files of this job, and read them and those it begins with."""
    address = urlsplit(storage_url)
    prefix = "/".join(part for part in (address.netloc, address.path.strip("/")) if part)
    objects = f"arn:{partition}:s3:::{prefix}"
    readable = [f"{objects}/{job_key(files.job_id)}/*"]
    if files.resumed is not None:
        readable.append(f"{objects}/{job_key(files.resumed)}/*")
    if files.bundle is not None:
        readable.append(f"{objects}/{bundle_key(files.bundle)}")
    statements = [
        {"Effect": "Allow", "Action": _WRITE, "Resource": readable[:1]},
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": readable},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


class StorageAccess:
    """Blocks: call it in a thread. Raises botocore's errors."""

    def __init__(self, role_arn: str, storage_url: str) -> None:
        self._sessions = RoleSessions()
        self._role_arn = role_arn
        self._storage_url = storage_url

    def credentials(self, files: Files) -> dict[str, Any]:
        """As `flows.contract.storage_credentials` reads them."""
        policy = session_policy(files, self._storage_url, self._role_arn.split(":")[1])
        made = self._sessions.begin(self._role_arn, files.job_id, policy, _SECONDS)
        return {
            "access_key_id": made["AccessKeyId"],
            "secret_access_key": made["SecretAccessKey"],
            "token": made["SessionToken"],
            "expires_at": made["Expiration"].isoformat(),
        }
