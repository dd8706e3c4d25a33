"""The Prefect server in several tasks, which are replaced one by one: nobody notices a deployment."""

from aws_cdk import Duration
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_servicediscovery as servicediscovery
from constructs import Construct

from infra.constructs import prefect_programs
from infra.constructs.database import DatabaseEndpoint
from infra.constructs.nag_suppressions import acknowledge
from infra.constructs.service import PREFECT_PORT, PrefectAccess, Service, TaskContext
from infra.constructs.valkey import Valkey

_PROGRAM = ("python", "-m", "deployments.server")
_IDLE_SECONDS = 60
_DRAIN_SECONDS = 30
"""A request to Prefect takes seconds; connections of its events last longer, and are made again."""

_READY = "/api/ready"
"""Says no while the task reaches its database or Valkey not: it could create no flow run."""

_START_SECONDS = 900
"""Health checks are ignored for so long after the start of a task, which may have a migration to do."""


class LargerPrefectServer(Construct):
    """Tasks that answer requests behind a balancer inside the VPC, one with Prefect's services, and Valkey.

    Ids below it are those of `PrefectServer`, so that the password and the names of the VPC stay when
    the settings change from one to the other. Plain HTTP as there.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        context: TaskContext,
        database: DatabaseEndpoint,
        replicas: int,
        node_type: str,
        cpu: int,
        memory_mib: int,
        may_be_entered: bool,
        protect: bool,
    ) -> None:
        super().__init__(scope, id)
        auth = prefect_programs.client_password(self)
        self.valkey = Valkey(self, "Valkey", vpc=context.vpc, node_type=node_type)
        self._environment = {**prefect_programs.environment(database), **self.valkey.environment}
        self._secrets = {**prefect_programs.secrets(database, auth), **self.valkey.secrets}
        self.task = Service(self, "Server", context=context, cpu=cpu, memory_mib=memory_mib)
        self._add_server()
        self.service = self.task.run(
            replicas=replicas,
            one_at_a_time=False,
            may_be_entered=may_be_entered,
            start_seconds=_START_SECONDS,
        )
        if may_be_entered:
            prefect_programs.explain_ecs_exec(self.task.definition.task_role)
        self.background = Service(self, "Services", context=context, cpu=cpu, memory_mib=memory_mib)
        self._add_services()
        self.services = self.background.run(replicas=1, one_at_a_time=True)
        for service in (self.service, self.services):
            self.valkey.admit(service)
            service.connections.allow_to(database.connections, ec2.Port.tcp(database.port), "Prefect server")
            service.node.add_dependency(self.valkey.nodes)
        self.namespace = servicediscovery.PrivateDnsNamespace(
            self, "Namespace", vpc=context.vpc, name=f"{context.name}.internal"
        )
        self.balancer = self._balancer(context.vpc, protect)
        self.targets = self._listen()
        url = f"http://{self.balancer.load_balancer_dns_name}:{PREFECT_PORT}/api"
        self.access = PrefectAccess(url, auth, self.balancer.connections)

    def _add_server(self) -> None:
        self.task.add_container(
            "server",
            [*_PROGRAM, "api", "--migrate", "--host", "0.0.0.0", "--port", str(PREFECT_PORT)],
            port=PREFECT_PORT,
            health=f"http://127.0.0.1:{PREFECT_PORT}{_READY}",
            environment={
                **self._environment,
                # Otherwise the balancer uses connections that the server is closing, and answers 502.
                "PREFECT_SERVER_API_KEEPALIVE_TIMEOUT": str(_IDLE_SECONDS + 10),
            },
            secrets=self._secrets,
        )

    def _add_services(self) -> None:
        """The events of a minute without them wait in Valkey."""
        self.background.add_container(
            "services",
            [*_PROGRAM, "services", "--migrate"],
            environment=self._environment,
            secrets=self._secrets,
        )

    def _balancer(self, vpc: ec2.IVpc, protect: bool) -> elb.ApplicationLoadBalancer:
        group = ec2.SecurityGroup(
            self,
            "BalancerSecurityGroup",
            vpc=vpc,
            allow_all_outbound=False,
            description="Balancer of the Prefect server",
        )
        balancer = elb.ApplicationLoadBalancer(
            self,
            "Balancer",
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            internet_facing=False,
            security_group=group,
            drop_invalid_header_fields=True,
            deletion_protection=protect,
            idle_timeout=Duration.seconds(_IDLE_SECONDS),
        )
        acknowledge(
            balancer,
            "AwsSolutions-ELB2",
            "Its clients are the service's own tasks; requests of users are logged at the facade's.",
        )
        return balancer

    def _listen(self) -> elb.ApplicationTargetGroup:
        listener = self.balancer.add_listener(
            "Http", port=PREFECT_PORT, protocol=elb.ApplicationProtocol.HTTP, open=False
        )
        return listener.add_targets(
            "Api",
            port=PREFECT_PORT,
            protocol=elb.ApplicationProtocol.HTTP,
            targets=[self.service],
            deregistration_delay=Duration.seconds(_DRAIN_SECONDS),
            # A failover of Valkey takes up to a minute. ECS replaces tasks that are unhealthy for longer.
            health_check=elb.HealthCheck(
                path=_READY,
                interval=Duration.seconds(10),
                timeout=Duration.seconds(8),
                healthy_threshold_count=2,
                unhealthy_threshold_count=9,
            ),
        )
