"""Valkey on ElastiCache, which the tasks of a larger Prefect server share."""

from aws_cdk import Fn
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.constructs.nag_suppressions import acknowledge

_PORT = 6379
_NODES = 2


class Valkey(Construct):
    """A node and a standby in another zone, which takes its place by itself.

    It holds events on their way and nothing else, so there are no backups. Not serverless, and without
    cluster mode: Prefect's package for Redis does not support Redis Cluster.
    """

    def __init__(self, scope: Construct, id: str, *, vpc: ec2.IVpc, node_type: str) -> None:
        super().__init__(scope, id)
        self._token = secretsmanager.Secret(
            self,
            "Token",
            description="JOBS_VALKEY_PASSWORD of the tasks of the Prefect server",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                password_length=48, exclude_punctuation=True
            ),
        )
        acknowledge(
            self._token, "AwsSolutions-SMG4", "Running tasks keep the password that they started with."
        )
        security_group = ec2.SecurityGroup(
            self, "SecurityGroup", vpc=vpc, allow_all_outbound=False, description="Valkey"
        )
        self._connections = ec2.Connections(security_groups=[security_group])
        self.nodes = self._nodes(vpc, node_type, security_group)
        acknowledge(self.nodes, "AwsSolutions-AEC5", "Security groups decide who reaches it, by any port.")

    def _nodes(
        self, vpc: ec2.IVpc, node_type: str, security_group: ec2.SecurityGroup
    ) -> elasticache.CfnReplicationGroup:
        private = vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
        subnets = elasticache.CfnSubnetGroup(
            self, "Subnets", description="Private subnets", subnet_ids=private.subnet_ids
        )
        # By default, keys that may expire make room for others: concurrency slots would vanish unseen.
        parameters = elasticache.CfnParameterGroup(
            self,
            "Parameters",
            cache_parameter_group_family="valkey8",
            description="Nothing is evicted",
            properties={"maxmemory-policy": "noeviction"},
        )
        return elasticache.CfnReplicationGroup(
            self,
            "Nodes",
            replication_group_description="Events of the Prefect server, on their way",
            engine="valkey",
            engine_version="8.0",
            cache_node_type=node_type,
            num_cache_clusters=_NODES,
            automatic_failover_enabled=True,
            multi_az_enabled=True,
            at_rest_encryption_enabled=True,
            transit_encryption_enabled=True,
            auth_token=self._token.secret_value.unsafe_unwrap(),  # CloudFormation looks it up
            port=_PORT,
            cache_subnet_group_name=subnets.ref,
            cache_parameter_group_name=parameters.ref,
            security_group_ids=[security_group.security_group_id],
            snapshot_retention_limit=0,
            auto_minor_version_upgrade=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The program makes Prefect's own variables of them (`deployments.broker`)."""
        return {
            "JOBS_VALKEY_HOST": self.nodes.attr_primary_end_point_address,
            "JOBS_VALKEY_PORT": str(_PORT),
            "JOBS_VALKEY_TLS": "true",
        }

    @property
    def secrets(self) -> dict[str, ecs.Secret]:
        return {"JOBS_VALKEY_PASSWORD": ecs.Secret.from_secrets_manager(self._token)}

    @property
    def node_ids(self) -> list[str]:
        """As CloudWatch names them."""
        return [Fn.join("-", [self.nodes.ref, f"{number:03}"]) for number in range(1, _NODES + 1)]

    def admit(self, service: ecs.FargateService) -> None:
        service.connections.allow_to(self._connections, ec2.Port.tcp(_PORT), "Valkey")
