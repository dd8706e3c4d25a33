"""Where tasks run: a Fargate cluster of its own, or one that is there."""

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from infra.constructs.reasons import acknowledge


def new_cluster(
    scope: Construct, id: str, *, vpc: ec2.IVpc, name: str, container_insights: bool
) -> ecs.ICluster:
    """A cluster that offers Fargate and, for jobs that ask for it, Fargate Spot."""
    cluster = ecs.Cluster(
        scope,
        id,
        vpc=vpc,
        cluster_name=name,
        enable_fargate_capacity_providers=True,
        container_insights_v2=ecs.ContainerInsights.ENABLED
        if container_insights
        else ecs.ContainerInsights.DISABLED,
    )
    if not container_insights:
        acknowledge(
            cluster,
            "AwsSolutions-ECS4",
            "AWS charges each of its metrics; the alarms need none. A setting has it.",
        )
    return cluster


def given_cluster(scope: Construct, id: str, *, vpc: ec2.IVpc, name: str) -> ecs.ICluster:
    """A cluster that is there, with the capacity providers FARGATE and FARGATE_SPOT."""
    return ecs.Cluster.from_cluster_attributes(scope, id, cluster_name=name, vpc=vpc, security_groups=[])
