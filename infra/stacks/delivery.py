"""What an image needs first: the repository, and the rights to push to it."""

from typing import Any

from aws_cdk import CfnOutput, RemovalPolicy, Stack
from constructs import Construct

from infra.constructs.github import GitHubAccess
from infra.constructs.registry import Registry
from infra.settings.file import Settings


class DeliveryStack(Stack):
    def __init__(self, scope: Construct, id: str, settings: Settings, **options: Any) -> None:
        super().__init__(scope, id, **options)
        removal = RemovalPolicy.RETAIN if settings.protect_data else RemovalPolicy.DESTROY
        self.repository = Registry(self, "Registry", name=settings.name, removal=removal).repository
        CfnOutput(self, "RepositoryUri", value=self.repository.repository_uri)
        if settings.github is not None:
            access = GitHubAccess(self, "GitHub", **dict(settings.github), images=self.repository)
            CfnOutput(self, "PushRoleArn", value=access.push.role_arn)
            CfnOutput(self, "DeployRoleArn", value=access.deploy.role_arn)
