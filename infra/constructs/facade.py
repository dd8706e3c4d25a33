"""The jobs API behind an HTTPS load balancer: the only thing that the world can reach."""

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as route53_targets
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.constructs.reasons import acknowledge
from infra.constructs.service import HTTPS, JOBS_HOME, PREFECT_PORT, Ground, PrefectAccess, Service
from infra.constructs.storage import Storage

PORT = 8000
IDLE_SECONDS = 300
"""Longer than any answer is silent: `?wait=` holds one for 60 seconds."""


class Facade(Construct):
    """No port 80, no TLS below 1.2; `certificate` is proved for `domain_name`.

    `zone`, if there is one, gets the address. `tokens` holds what `python -m api tokens` writes.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        ground: Ground,
        prefect: PrefectAccess,
        storage: Storage,
        tokens: secretsmanager.ISecret,
        webhooks: secretsmanager.ISecret | None,
        domain_name: str,
        certificate: acm.ICertificate,
        zone: route53.IHostedZone | None,
        allowed_cidrs: Sequence[str],
        retention_days: int | None,
        replicas: int,
        cpu: int,
        memory_mib: int,
        access_logs: s3.IBucket,
        protect: bool,
    ) -> None:
        super().__init__(scope, id)
        self.task = Service(self, "Api", ground=ground, cpu=cpu, memory_mib=memory_mib)
        environment = {
            **prefect.environment,
            "JOBS_API_HOST": "0.0.0.0",
            "JOBS_API_PORT": str(PORT),
            "JOBS_STORAGE_URL": storage.url,
            "JOBS_HOME": JOBS_HOME,
            "JOBS_MACHINES": "fargate",
            "JOBS_LOG_FORMAT": "json",
            # Else the load balancer asks on connections that the facade is closing, and answers 502.
            "JOBS_KEEP_ALIVE_SECONDS": str(IDLE_SECONDS + 10),
            # Whom uvicorn believes which scheme and client a request had: the load balancer.
            "FORWARDED_ALLOW_IPS": ground.vpc.vpc_cidr_block,
        }
        if retention_days is not None:
            environment["JOBS_RETENTION_DAYS"] = str(retention_days)
        secrets = {**prefect.secrets, "JOBS_TOKENS": ecs.Secret.from_secrets_manager(tokens)}
        if webhooks is not None:
            secrets["JOBS_WEBHOOK_SECRET"] = ecs.Secret.from_secrets_manager(webhooks)
        self.task.add_container(
            "api",
            ["python", "-m", "api"],
            environment=environment,
            secrets=secrets,
            port=PORT,
            health=f"http://127.0.0.1:{PORT}/livez",
        )
        self.service = self.task.run(replicas=replicas, one_at_a_time=False)
        self.service.connections.allow_to(prefect.connections, ec2.Port.tcp(PREFECT_PORT), "Facade")
        storage.grant_use(self.task.definition.task_role)
        self._open_to(ground, domain_name, certificate, zone, allowed_cidrs, access_logs, protect)

    def _open_to(
        self,
        ground: Ground,
        domain_name: str,
        certificate: acm.ICertificate,
        zone: route53.IHostedZone | None,
        allowed_cidrs: Sequence[str],
        access_logs: s3.IBucket,
        protect: bool,
    ) -> None:
        group = ec2.SecurityGroup(
            self, "Door", vpc=ground.vpc, allow_all_outbound=False, description=f"{ground.name} load balancer"
        )
        for cidr in allowed_cidrs:
            group.add_ingress_rule(ec2.Peer.ipv4(cidr), HTTPS, "Clients")
        if "0.0.0.0/0" in allowed_cidrs:
            acknowledge(
                group,
                "AwsSolutions-EC23",
                "HTTPS of a public API: every request needs a token. A setting narrows it.",
            )
        self.balancer = elb.ApplicationLoadBalancer(
            self,
            "Balancer",
            vpc=ground.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            internet_facing=True,
            security_group=group,
            drop_invalid_header_fields=True,
            deletion_protection=protect,
            idle_timeout=Duration.seconds(IDLE_SECONDS),
        )
        self.balancer.log_access_logs(access_logs, "balancer")
        listener = self.balancer.add_listener(
            "Https",
            port=443,
            protocol=elb.ApplicationProtocol.HTTPS,
            certificates=[certificate],
            ssl_policy=elb.SslPolicy.RECOMMENDED_TLS,
            open=False,
        )
        self.targets = listener.add_targets(
            "Api",
            port=PORT,
            protocol=elb.ApplicationProtocol.HTTP,
            targets=[self.service],
            deregistration_delay=Duration.seconds(30),
            health_check=elb.HealthCheck(path="/livez", interval=Duration.seconds(15)),
        )
        if zone is not None:
            route53.ARecord(
                self,
                "Address",
                zone=zone,
                record_name=f"{domain_name}.",
                target=route53.RecordTarget.from_alias(route53_targets.LoadBalancerTarget(self.balancer)),
            )
