"""The bucket that holds bundles, and outputs and logs of jobs."""

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.constructs.reasons import explain_wildcard

PREFIX = "store"
"""Everything of the service lies below it, so that grants name it."""


class Storage(Construct):
    """Private, encrypted, TLS only; what was deleted can come back for `noncurrent_days`.

    The key is the one that S3 keeps: a key of our own would cost a request for each of a job's
    files, and nobody outside the account reads the bucket.
    """

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
        # Known before it is made, so that what names it does not tie its stack to this one.
        self._name = bucket_name
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            bucket_name=bucket_name,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            versioned=True,
            server_access_logs_bucket=logs,
            server_access_logs_prefix="bucket/",
            lifecycle_rules=[
                s3.LifecycleRule(
                    noncurrent_version_expiration=Duration.days(noncurrent_days),
                    expired_object_delete_marker=True,
                    abort_incomplete_multipart_upload_after=Duration.days(2),
                )
            ],
            removal_policy=removal,
        )

    @property
    def url(self) -> str:
        """For JOBS_STORAGE_URL."""
        return f"s3://{self._name}/{PREFIX}"

    def grant_use(self, role: iam.Role) -> None:
        """Let a role list the store, and read, write and remove what is in it; not the bucket's settings."""
        bucket = f"arn:{Aws.PARTITION}:s3:::{self._name}"
        objects = f"{bucket}/{PREFIX}/*"
        actions = [
            "s3:GetObject",
            "s3:PutObject",
            "s3:DeleteObject",
            "s3:AbortMultipartUpload",
            "s3:ListMultipartUploadParts",
        ]
        role.add_to_policy(iam.PolicyStatement(actions=actions, resources=[objects]))
        # Not by prefix: without this right, S3 answers 403 where there is no such object.
        role.add_to_policy(iam.PolicyStatement(actions=["s3:ListBucket"], resources=[bucket]))
        unknown = "The keys of jobs and bundles are not known beforehand."
        explain_wildcard(role, objects, dict.fromkeys(actions, unknown))
