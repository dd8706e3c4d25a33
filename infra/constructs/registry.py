"""Where the image is pushed to and pulled from."""

from aws_cdk import RemovalPolicy
from aws_cdk import aws_ecr as ecr
from constructs import Construct


class Registry(Construct):
    """A repository with immutable tags, which keeps the latest images."""

    def __init__(self, scope: Construct, id: str, *, name: str, removal: RemovalPolicy) -> None:
        super().__init__(scope, id)
        self.repository = ecr.Repository(
            self,
            "Repository",
            repository_name=name,
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            encryption=ecr.RepositoryEncryption.AES_256,
            lifecycle_rules=[ecr.LifecycleRule(description="Keep images for a rollback", max_image_count=50)],
            removal_policy=removal,
        )
