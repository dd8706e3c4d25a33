"""What everything else needs: access logs and the network."""

from typing import Any

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from infra.constructs.access_logs import AccessLogs
from infra.constructs.network import Network, existing_network
from infra.settings.file import Settings
from infra.settings.foundation import ExistingNetwork


class FoundationStack(Stack):
    def __init__(self, scope: Construct, id: str, settings: Settings, **options: Any) -> None:
        super().__init__(scope, id, **options)
        removal = RemovalPolicy.RETAIN if settings.protect_data else RemovalPolicy.DESTROY
        self.access_logs = AccessLogs(
            self, "AccessLogs", days=settings.storage.log_days, removal=removal
        ).bucket
        self.vpc = self._network(settings)

    def _network(self, settings: Settings) -> ec2.IVpc:
        network = settings.network
        if isinstance(network, ExistingNetwork):
            return existing_network(
                self,
                "Vpc",
                vpc_id=network.vpc_id,
                cidr=network.cidr,
                zones=settings.zones,
                private_subnet_ids=network.private_subnet_ids,
                public_subnet_ids=network.public_subnet_ids,
            )
        return Network(
            self,
            "Network",
            cidr=network.cidr,
            zones=settings.zones,
            nat_gateways=network.nat_gateways,
            interface_endpoints=network.interface_endpoints,
            logs=self.access_logs,
        ).vpc
