"""Suppresses findings of cdk-nag, each with a reason that is kept in the template."""

from collections.abc import Mapping

from aws_cdk import Acknowledgment, Aws, Validations
from constructs import IConstruct


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Suppress a finding of cdk-nag in `construct` and all below it.

    `rule` is a rule's name, or one of its findings: `AwsSolutions-IAM5[Resource::*]`.
    """
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))


def explain_wildcard(construct: IConstruct, resource: str, reasons: Mapping[str, str]) -> None:
    """Suppress the finding that a policy below `construct` allows actions on a `resource` with a `*`.

    `reasons` has a reason for each action. cdk-nag knows resources only, so the reason in the template
    has a line for each action, which tests/infra reads.
    """
    named = resource.replace(Aws.PARTITION, "<AWS::Partition>")
    lines = "\n".join(f"{action}: {reason}" for action, reason in reasons.items())
    acknowledge(construct, f"AwsSolutions-IAM5[Resource::{named}]", lines)


def environment_is_no_secret(construct: IConstruct) -> None:
    """For a task definition whose secrets ECS injects."""
    acknowledge(
        construct,
        "AwsSolutions-ECS2",
        "Variables hold names and addresses only; secrets are injected from Secrets Manager.",
    )
