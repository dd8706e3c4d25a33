"""The Fargate cluster: a new one, or an existing one."""

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from infra.constructs.nag_suppressions import acknowledge


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
            "AWS charges for each of its metrics, and no alarm needs them. A setting enables it.",
        )
    return cluster


def existing_cluster(scope: Construct, id: str, *, vpc: ec2.IVpc, name: str) -> ecs.ICluster:
    """An existing cluster, with the capacity providers FARGATE and FARGATE_SPOT."""
    return ecs.Cluster.from_cluster_attributes(scope, id, cluster_name=name, vpc=vpc, security_groups=[])
