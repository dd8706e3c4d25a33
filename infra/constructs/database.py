"""PostgreSQL for the Prefect server: Aurora Serverless v2, one RDS instance, or an existing database."""

from dataclasses import dataclass

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.constructs.nag_suppressions import acknowledge

NAME = "prefect"
PORT = 5432
PARAMETERS = {"rds.force_ssl": "1"}
"""Connections without TLS are rejected."""


BACKUPS = Duration.days(7)
"""Point-in-time recovery, as long as the bucket keeps deleted objects. The default of RDS is one day."""


@dataclass(frozen=True, slots=True)
class DatabaseEndpoint:
    """How the server reaches its database. The secret is JSON with `username` and `password`."""

    host: str
    port: int
    name: str
    secret: secretsmanager.ISecret
    connections: ec2.Connections


class AuroraDatabase(Construct):
    """A cluster that scales between two capacities, in ACU."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc: ec2.IVpc,
        min_capacity: float,
        max_capacity: float,
        readers: int,
        protect: bool,
    ) -> None:
        super().__init__(scope, id)
        engine = rds.DatabaseClusterEngine.aurora_postgres(version=rds.AuroraPostgresEngineVersion.VER_17_7)
        self.cluster = rds.DatabaseCluster(
            self,
            "Cluster",
            engine=engine,
            parameter_group=rds.ParameterGroup(self, "Parameters", engine=engine, parameters=PARAMETERS),
            credentials=rds.Credentials.from_generated_secret("prefect"),
            default_database_name=NAME,
            port=PORT,
            serverless_v2_min_capacity=min_capacity,
            serverless_v2_max_capacity=max_capacity,
            writer=rds.ClusterInstance.serverless_v2("Writer"),
            readers=[
                rds.ClusterInstance.serverless_v2(f"Reader{number}", scale_with_writer=True)
                for number in range(1, readers + 1)
            ],
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            storage_encrypted=True,  # with the account's key for RDS: no other account reads it
            iam_authentication=True,
            copy_tags_to_snapshot=True,
            backup=rds.BackupProps(retention=BACKUPS),
            deletion_protection=protect,
            removal_policy=RemovalPolicy.SNAPSHOT if protect else RemovalPolicy.DESTROY,
        )
        _explain(self)
        if not protect:
            acknowledge(self, "AwsSolutions-RDS10", "The settings say that data need no protection.")
        self.endpoint = _endpoint(
            self.cluster.cluster_endpoint, self.cluster.secret, self.cluster.connections
        )


class InstanceDatabase(Construct):
    """One instance, with a standby in another zone if `multi_az`."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc: ec2.IVpc,
        instance_type: str,
        storage_gib: int,
        multi_az: bool,
        protect: bool,
    ) -> None:
        super().__init__(scope, id)
        engine = rds.DatabaseInstanceEngine.postgres(version=rds.PostgresEngineVersion.VER_17_7)
        self.instance = rds.DatabaseInstance(
            self,
            "Instance",
            engine=engine,
            parameter_group=rds.ParameterGroup(self, "Parameters", engine=engine, parameters=PARAMETERS),
            credentials=rds.Credentials.from_generated_secret("prefect"),
            database_name=NAME,
            port=PORT,
            instance_type=ec2.InstanceType(instance_type),
            allocated_storage=storage_gib,
            max_allocated_storage=storage_gib * 5,
            storage_type=rds.StorageType.GP3,
            multi_az=multi_az,
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            storage_encrypted=True,
            iam_authentication=True,
            copy_tags_to_snapshot=True,
            backup_retention=BACKUPS,
            deletion_protection=protect,
            removal_policy=RemovalPolicy.SNAPSHOT if protect else RemovalPolicy.DESTROY,
        )
        _explain(self)
        if not multi_az:
            acknowledge(
                self,
                "AwsSolutions-RDS3",
                "The settings choose one instance, with backups and no standby.",
            )
        if not protect:
            acknowledge(self, "AwsSolutions-RDS10", "The settings say that data need no protection.")
        self.endpoint = _endpoint(
            self.instance.instance_endpoint, self.instance.secret, self.instance.connections
        )


def existing_database(
    scope: Construct, id: str, *, host: str, port: int, name: str, secret_arn: str, security_group_id: str
) -> DatabaseEndpoint:
    """An existing database. Its security group gets a rule for the Prefect server."""
    group = ec2.SecurityGroup.from_security_group_id(scope, f"{id}SecurityGroup", security_group_id)
    return DatabaseEndpoint(
        host=host,
        port=port,
        name=name,
        secret=secretsmanager.Secret.from_secret_complete_arn(scope, f"{id}Secret", secret_arn),
        connections=ec2.Connections(security_groups=[group], default_port=ec2.Port.tcp(port)),
    )


def _endpoint(
    endpoint: rds.Endpoint, secret: secretsmanager.ISecret | None, connections: ec2.Connections
) -> DatabaseEndpoint:
    assert secret is not None, "generated credentials have a secret"
    return DatabaseEndpoint(endpoint.hostname, PORT, NAME, secret, connections)


def _explain(database: Construct) -> None:
    acknowledge(
        database,
        "AwsSolutions-SMG4",
        "ECS injects the password when a task starts: a rotation would shut the running server out.",
    )
    acknowledge(
        database, "AwsSolutions-RDS11", "Security groups decide who reaches it; a hidden port adds nothing."
    )
