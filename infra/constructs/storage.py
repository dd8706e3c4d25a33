"""The bucket of bundles, and of the outputs and logs of jobs."""

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.constructs.nag_suppressions import explain_wildcard

PREFIX = "store"
"""All objects of the service are below it, so that grants name it."""

OBJECTS = [
    *("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
    *("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
]
"""To read, write and remove objects."""


def private_bucket(
    scope: Construct,
    *,
    bucket_name: str,
    noncurrent_days: int,
    logs: s3.IBucket,
    removal: RemovalPolicy,
    log_prefix: str = "bucket",
    keep_days: int | None = None,
) -> s3.Bucket:
    """Encrypted, TLS only. Deleted objects can be restored for `noncurrent_days`.

    It is encrypted with S3's own key: another key would cost a request for each of a job's files, and
    nobody outside the account reads the bucket.
    """
    return s3.Bucket(
        scope,
        "Bucket",
        bucket_name=bucket_name,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        encryption=s3.BucketEncryption.S3_MANAGED,
        enforce_ssl=True,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        versioned=True,
        server_access_logs_bucket=logs,
        server_access_logs_prefix=f"{log_prefix}/",
        lifecycle_rules=[
            s3.LifecycleRule(
                noncurrent_version_expiration=Duration.days(noncurrent_days),
                expired_object_delete_marker=True,
                abort_incomplete_multipart_upload_after=Duration.days(2),
            ),
            *([] if keep_days is None else [s3.LifecycleRule(expiration=Duration.days(keep_days))]),
        ],
        removal_policy=removal,
    )


class Storage(Construct):
    """The bucket of the service."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        bucket_name: str,
        noncurrent_days: int,
        logs: s3.IBucket,
        removal: RemovalPolicy,
    ) -> None:
        super().__init__(scope, id)
        # A fixed name, so that stacks that name it do not depend on this one.
        self._name = bucket_name
        self.bucket = private_bucket(
            self, bucket_name=bucket_name, noncurrent_days=noncurrent_days, logs=logs, removal=removal
        )

    @property
    def url(self) -> str:
        """For JOBS_STORAGE_URL."""
        return f"s3://{self._name}/{PREFIX}"

    def grant_jobs(self, role: iam.Role) -> None:
        """Allow what all jobs together need. The policy of a session limits it to one of them."""
        objects = f"arn:{Aws.PARTITION}:s3:::{self._name}/{PREFIX}"
        allowed = {
            f"{objects}/jobs/*": [
                *("s3:GetObject", "s3:PutObject"),
                *("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
            ],
            f"{objects}/bundles/*": ["s3:GetObject"],
        }
        for resource, actions in allowed.items():
            role.add_to_policy(iam.PolicyStatement(actions=actions, resources=[resource]))
            reason = "Keys are not known in advance; the policy of each session names one job."
            explain_wildcard(role, resource, dict.fromkeys(actions, reason))

    def grant_use(self, role: iam.Role) -> None:
        """Allow a role to list, read, write and remove objects, and not to change the bucket's settings."""
        bucket = f"arn:{Aws.PARTITION}:s3:::{self._name}"
        objects = f"{bucket}/{PREFIX}/*"
        role.add_to_policy(iam.PolicyStatement(actions=OBJECTS, resources=[objects]))
        # For the whole bucket: without this right, S3 answers 403 for an object that does not exist.
        role.add_to_policy(iam.PolicyStatement(actions=["s3:ListBucket"], resources=[bucket]))
        unknown = "The keys of jobs and bundles are not known in advance."
        explain_wildcard(role, objects, dict.fromkeys(OBJECTS, unknown))
