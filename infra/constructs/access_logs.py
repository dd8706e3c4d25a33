"""The bucket for the access logs of the load balancer and the jobs' bucket, and the VPC's flow logs."""

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.constructs.nag_suppressions import acknowledge


class AccessLogs(Construct):
    """Logs expire after `days`."""

    def __init__(self, scope: Construct, id: str, *, days: int, removal: RemovalPolicy) -> None:
        super().__init__(scope, id)
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            # S3's own key: load balancers can't write logs with another one.
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(days))],
            removal_policy=removal,
        )
        acknowledge(self.bucket, "AwsSolutions-S1", "Logging access to the log bucket would log itself.")
