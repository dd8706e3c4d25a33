"""The HTTPS load balancer in front of the facade: the only resource that is reachable from outside."""

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as route53_targets
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.constructs.nag_suppressions import acknowledge
from infra.constructs.service import HTTPS

IDLE_SECONDS = 300
"""Longer than any response pauses: `?wait=` holds one for up to 60 seconds."""


class LoadBalancer(Construct):
    """No port 80, no TLS below 1.2. With `internal`, it has private addresses only."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc: ec2.IVpc,
        service: ecs.FargateService,
        certificate: acm.ICertificate,
        allowed_cidrs: Sequence[str],
        internal: bool,
        access_logs: s3.IBucket,
        protect: bool,
    ) -> None:
        super().__init__(scope, id)
        group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            allow_all_outbound=False,
            description="Load balancer of the jobs API",
        )
        for cidr in allowed_cidrs:
            group.add_ingress_rule(ec2.Peer.ipv4(cidr), HTTPS, "Clients")
        if "0.0.0.0/0" in allowed_cidrs:
            acknowledge(
                group,
                "AwsSolutions-EC23",
                "A public API: every request needs a token.",
            )
        subnets = ec2.SubnetType.PRIVATE_WITH_EGRESS if internal else ec2.SubnetType.PUBLIC
        self.balancer = elb.ApplicationLoadBalancer(
            self,
            "Balancer",
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=subnets),
            internet_facing=not internal,
            security_group=group,
            drop_invalid_header_fields=True,
            deletion_protection=protect,
            idle_timeout=Duration.seconds(IDLE_SECONDS),
        )
        self.balancer.log_access_logs(access_logs, "balancer")
        self._listener = self.balancer.add_listener(
            "Https",
            port=443,
            protocol=elb.ApplicationProtocol.HTTPS,
            certificates=[certificate],
            ssl_policy=elb.SslPolicy.RECOMMENDED_TLS,
            open=False,
        )
        self.targets = self._listener.add_targets(
            "Api",
            port=80,  # of the target group: each task registers its container's port
            protocol=elb.ApplicationProtocol.HTTP,
            targets=[service],
            deregistration_delay=Duration.seconds(30),
            health_check=elb.HealthCheck(path="/livez", interval=Duration.seconds(15)),
        )

    def hide(self, path: str) -> None:
        """Answer requests for this path, and all below it, as if they led nowhere."""
        self._listener.add_action(
            "Hidden",
            priority=1,
            conditions=[elb.ListenerCondition.path_patterns([path, f"{path}/*"])],
            action=elb.ListenerAction.fixed_response(404),
        )

    def name(self, zone: route53.IHostedZone, domain_name: str) -> None:
        """Add a DNS record for `domain_name` to the zone."""
        route53.ARecord(
            self,
            "Address",
            zone=zone,
            record_name=f"{domain_name}.",
            target=route53.RecordTarget.from_alias(route53_targets.LoadBalancerTarget(self.balancer)),
        )
