"""Why a rule of cdk-nag does not hold somewhere: written where it is broken, and kept in the template."""

from collections.abc import Mapping

from aws_cdk import Acknowledgment, Aws, Validations
from constructs import IConstruct


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Accept a finding of cdk-nag in `construct` and all below it.

    `rule` is a rule's name, or one of its findings: `AwsSolutions-IAM5[Resource::*]`.
    """
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))


def explain_wildcard(construct: IConstruct, resource: str, reasons: Mapping[str, str]) -> None:
    """Accept that a policy below `construct` allows actions on `resource`, with a `*` in it.

    `reasons` says of each action why; cdk-nag knows resources only, so tests/infra reads the actions
    from what it keeps in the template, a line for each.
    """
    named = resource.replace(Aws.PARTITION, "<AWS::Partition>")
    lines = "\n".join(f"{action}: {reason}" for action, reason in reasons.items())
    acknowledge(construct, f"AwsSolutions-IAM5[Resource::{named}]", lines)


def environment_is_no_secret(construct: IConstruct) -> None:
    """For a task definition whose secrets are all injected by ECS."""
    acknowledge(
        construct,
        "AwsSolutions-ECS2",
        "Variables hold names and addresses only; secrets are injected from Secrets Manager.",
    )
