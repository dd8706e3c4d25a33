"""Fargate tasks and services in the private subnets, from the one image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.constructs.nag_suppressions import environment_is_no_secret, explain_wildcard

HTTPS = ec2.Port.tcp(443)
PREFECT_PORT = 4200
JOBS_HOME = "/var/lib/jobs"
"""The image has this directory, for the user that it runs as."""
PLATFORM = ecs.RuntimePlatform(
    cpu_architecture=ecs.CpuArchitecture.X86_64, operating_system_family=ecs.OperatingSystemFamily.LINUX
)


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What all tasks share: network, cluster, image."""

    name: str
    vpc: ec2.IVpc
    cluster: ecs.ICluster
    cluster_name: str
    image: ecs.ContainerImage
    log_days: int


@dataclass(frozen=True, slots=True)
class PrefectAccess:
    """How a task connects to the Prefect server. The secret is the whole PREFECT_API_AUTH_STRING."""

    url: str
    auth: secretsmanager.ISecret
    connections: ec2.Connections

    @property
    def environment(self) -> dict[str, str]:
        return {"PREFECT_API_URL": self.url}

    @property
    def secrets(self) -> dict[str, ecs.Secret]:
        return {"PREFECT_API_AUTH_STRING": ecs.Secret.from_secrets_manager(self.auth)}


class Task(Construct):
    """A task definition, the log of its containers, and the security group of its network interface.

    It may connect by HTTPS only, until a stack allows more.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        context: TaskContext,
        cpu: int,
        memory_mib: int,
        disk_gib: int | None = None,
        family: str | None = None,
    ) -> None:
        super().__init__(scope, id)
        self._context = context
        self.log_group = log_group(self, context.log_days)
        self.definition = ecs.FargateTaskDefinition(
            self,
            "Definition",
            family=family or f"{context.name}-{id.lower()}",
            cpu=cpu,
            memory_limit_mib=memory_mib,
            ephemeral_storage_gib=disk_gib,
            runtime_platform=PLATFORM,
        )
        environment_is_no_secret(self.definition)
        explain_wildcard(
            self.definition.obtain_execution_role(),
            "*",
            {"ecr:GetAuthorizationToken": "ECS pulls the image with it, and it knows no narrower resource."},
        )
        self.security_group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=context.vpc,
            allow_all_outbound=False,
            description=f"{context.name} {id}",
        )
        self.security_group.add_egress_rule(ec2.Peer.any_ipv4(), HTTPS, "AWS, git, webhooks")

    def add_container(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        secrets: Mapping[str, ecs.Secret],
        essential: bool = True,
        port: int | None = None,
        health: str | None = None,
    ) -> ecs.ContainerDefinition:
        """`health` is an address inside the task that answers 2xx while the program is healthy."""
        region = Stack.of(self).region
        return self.definition.add_container(
            name,
            container_name=name,
            image=self._context.image,
            command=list(command),
            environment={"AWS_REGION": region, "AWS_DEFAULT_REGION": region, **environment},
            secrets=dict(secrets),
            essential=essential,
            port_mappings=[ecs.PortMapping(container_port=port)] if port else None,
            health_check=_answers(health) if health else None,
            # An init as process 1 forwards signals and reaps orphans.
            linux_parameters=ecs.LinuxParameters(self, f"{name}-linux", init_process_enabled=True),
            stop_timeout=Duration.seconds(120),
            logging=ecs.LogDrivers.aws_logs(stream_prefix=name, log_group=self.log_group),
        )


class Service(Task):
    """A task that ECS keeps running. A deployment that does not become healthy is rolled back."""

    def run(
        self,
        *,
        replicas: int,
        one_at_a_time: bool,
        may_be_entered: bool = False,
        start_seconds: int | None = None,
    ) -> ecs.FargateService:
        """`one_at_a_time` stops the old task first, for programs that must not run twice.

        `start_seconds` is how long health checks are ignored, for one behind a load balancer.
        """
        self.service = ecs.FargateService(
            self,
            "Service",
            cluster=self._context.cluster,
            task_definition=self.definition,
            desired_count=replicas,
            min_healthy_percent=0 if one_at_a_time else 100,
            max_healthy_percent=100 if one_at_a_time else 200,
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            security_groups=[self.security_group],
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            assign_public_ip=False,
            enable_ecs_managed_tags=True,
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
            enable_execute_command=may_be_entered,
            health_check_grace_period=None if start_seconds is None else Duration.seconds(start_seconds),
        )
        # Otherwise a task may start before it has its rights and rules, and count as failed.
        self.service.node.add_dependency(self.security_group, self.definition.obtain_execution_role())
        return self.service


def log_group(scope: Construct, days: int) -> logs.LogGroup:
    """The log of programs. It goes with its stack."""
    return logs.LogGroup(
        scope,
        "Logs",
        retention=logs.RetentionDays[_RETENTION[days]],
        removal_policy=RemovalPolicy.DESTROY,
    )


_RETENTION = {
    1: "ONE_DAY",
    3: "THREE_DAYS",
    7: "ONE_WEEK",
    14: "TWO_WEEKS",
    30: "ONE_MONTH",
    60: "TWO_MONTHS",
    90: "THREE_MONTHS",
    180: "SIX_MONTHS",
    365: "ONE_YEAR",
}


def _answers(address: str) -> ecs.HealthCheck:
    return ecs.HealthCheck(
        command=[
            "CMD",
            "python",
            "-c",
            f"from urllib.request import urlopen; urlopen('{address}', timeout=5)",
        ],
        interval=Duration.seconds(30),
        timeout=Duration.seconds(10),
        retries=3,
        start_period=Duration.seconds(180),
    )
