"""Sessions of AWS's roles for one job each, limited by a policy."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID


class RoleSessions:
    """AWS's STS. Blocks: call it in a thread. Raises botocore's errors."""

    def __init__(self) -> None:
        # An optional package, which only a service on AWS has.
        import boto3  # noqa: PLC0415 - as said

        self._client = boto3.client
        self._sts = boto3.client("sts")

    def begin(self, role_arn: str, job_id: UUID, policy: str, seconds: int) -> Mapping[str, Any]:
        """Credentials, as STS names them."""
        made: Mapping[str, Any] = self._sts.assume_role(
            RoleArn=role_arn, RoleSessionName=f"job-{job_id}", Policy=policy, DurationSeconds=seconds
        )["Credentials"]
        return made

    def touch(self, credentials: Mapping[str, Any], bucket: str, key: str) -> None:
        """Make an empty object."""
        self._client(
            "s3",
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
        ).put_object(Bucket=bucket, Key=key)
