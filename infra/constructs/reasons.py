"""Why a rule of cdk-nag does not hold somewhere: written where it is broken, and kept in the template."""

from aws_cdk import Acknowledgment, Aws, Validations
from constructs import IConstruct


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Accept a finding of cdk-nag in `construct` and all below it.

    `rule` is a rule's name, or one of its findings: `AwsSolutions-IAM5[Resource::*]`.
    """
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))


def explain_wildcard(construct: IConstruct, resource: str, reason: str) -> None:
    """Accept that a policy below `construct` names `resource`, with a `*` in it; no other is accepted."""
    named = resource.replace(Aws.PARTITION, "<AWS::Partition>")
    acknowledge(construct, f"AwsSolutions-IAM5[Resource::{named}]", reason)


def environment_is_no_secret(construct: IConstruct) -> None:
    """For a task definition whose secrets are all injected by ECS."""
    acknowledge(
        construct,
        "AwsSolutions-ECS2",
        "Variables hold names and addresses only; secrets are injected from Secrets Manager.",
    )
