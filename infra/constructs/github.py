"""Authenticates GitHub's workflows with OIDC, so that no key is stored there."""

from aws_cdk import Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.constructs.nag_suppressions import explain_wildcard

ISSUER = "token.actions.githubusercontent.com"
BOOTSTRAP_ROLES = ("deploy", "file-publishing", "image-publishing", "lookup")
"""The roles of `cdk bootstrap` that a deployment assumes: aws-cdk's `bootstrap-template.yaml`."""


class GitHubAccess(Construct):
    """Two roles for one repository: workflows of a branch push images, workflows of an environment deploy.

    Without `provider_arn`, GitHub's OIDC provider is created. An account can have only one.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        repository: str,
        branch: str,
        environment: str,
        provider_arn: str | None,
        images: ecr.IRepository,
    ) -> None:
        super().__init__(scope, id)
        self._provider_arn = provider_arn or self._provider()
        self.push = self._role("Push", f"repo:{repository}:ref:refs/heads/{branch}")
        images.grant_pull_push(self.push)
        explain_wildcard(self.push, "*", {"ecr:GetAuthorizationToken": "Knows no narrower resource."})
        self.deploy = self._role("Deploy", f"repo:{repository}:environment:{environment}")
        stack = Stack.of(self)
        self.deploy.add_to_policy(
            iam.PolicyStatement(
                actions=["sts:AssumeRole"],
                resources=[
                    f"arn:{stack.partition}:iam::{stack.account}:role/"
                    f"cdk-hnb659fds-{role}-role-{stack.account}-{stack.region}"
                    for role in BOOTSTRAP_ROLES
                ],
            )
        )

    def _provider(self) -> str:
        # Not `iam.OpenIdConnectProvider`, which brings a Lambda function. AWS verifies GitHub's
        # certificate by its own list of authorities, so no thumbprint is needed.
        provider = iam.CfnOIDCProvider(
            self, "Provider", url=f"https://{ISSUER}", client_id_list=["sts.amazonaws.com"]
        )
        arn: str = provider.attr_arn
        return arn

    def _role(self, id: str, subject: str) -> iam.Role:
        return iam.Role(
            self,
            id,
            description=f"For GitHub's {subject}",
            assumed_by=iam.WebIdentityPrincipal(
                self._provider_arn,
                {"StringEquals": {f"{ISSUER}:aud": "sts.amazonaws.com", f"{ISSUER}:sub": subject}},
            ),
        )
