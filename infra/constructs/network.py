"""The VPC: a new one, or an existing one."""

from collections.abc import Sequence

from aws_cdk import Annotations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_s3 as s3
from constructs import Construct

AWS_APIS = {
    "EcrApi": ec2.InterfaceVpcEndpointAwsService.ECR,
    "EcrDocker": ec2.InterfaceVpcEndpointAwsService.ECR_DOCKER,
    "Ecs": ec2.InterfaceVpcEndpointAwsService.ECS,
    "Logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
    "Secrets": ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
    "Sts": ec2.InterfaceVpcEndpointAwsService.STS,
    "Sqs": ec2.InterfaceVpcEndpointAwsService.SQS,
}
"""The APIs that tasks call. S3 has a gateway endpoint, which is free."""


class Network(Construct):
    """Public subnets hold the load balancer and NAT only; private ones hold tasks and database."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        cidr: str,
        zones: Sequence[str],
        nat_gateways: int,
        interface_endpoints: bool,
        logs: s3.IBucket,
    ) -> None:
        super().__init__(scope, id)
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(cidr),
            availability_zones=list(zones),
            nat_gateways=nat_gateways,
            restrict_default_security_group=False,  # needs a Lambda; nothing uses the group
            subnet_configuration=[
                ec2.SubnetConfiguration(name="public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=26),
                ec2.SubnetConfiguration(name="private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            ],
            gateway_endpoints={
                "S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)
            },
            flow_logs={
                "Rejected": ec2.FlowLogOptions(
                    destination=ec2.FlowLogDestination.to_s3(logs, "vpc"),
                    traffic_type=ec2.FlowLogTrafficType.REJECT,
                )
            },
        )
        if interface_endpoints:
            self._reach_aws_without_nat(cidr)

    def _reach_aws_without_nat(self, cidr: str) -> None:
        callers = ec2.SecurityGroup(
            self, "Endpoints", vpc=self.vpc, allow_all_outbound=False, description="Interface endpoints"
        )
        callers.add_ingress_rule(ec2.Peer.ipv4(cidr), ec2.Port.tcp(443), "Tasks")
        for name, service in AWS_APIS.items():
            self.vpc.add_interface_endpoint(name, service=service, security_groups=[callers], open=False)


def existing_network(
    scope: Construct,
    id: str,
    *,
    vpc_id: str,
    cidr: str,
    zones: Sequence[str],
    private_subnet_ids: Sequence[str],
    public_subnet_ids: Sequence[str],
) -> ec2.IVpc:
    """An existing VPC as the settings describe it. Nothing is looked up in the account."""
    vpc = ec2.Vpc.from_vpc_attributes(
        scope,
        id,
        vpc_id=vpc_id,
        vpc_cidr_block=cidr,
        availability_zones=list(zones),
        private_subnet_ids=list(private_subnet_ids),
        public_subnet_ids=list(public_subnet_ids),
    )
    Annotations.of(scope).acknowledge_warning(
        "@aws-cdk/aws-ec2:noSubnetRouteTableId", "The routes belong to the owner of the VPC."
    )
    return vpc
