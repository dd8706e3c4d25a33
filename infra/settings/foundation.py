"""The network and the cluster: new ones, or existing ones."""

from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import Field, field_validator

from infra.settings.strict import StrictModel

SubnetId = Annotated[str, Field(pattern=r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$")]


class NewNetwork(StrictModel):
    """A new VPC: public subnets for the load balancer and NAT, private ones for the rest."""

    kind: Literal["new"] = "new"
    cidr: str = Field(default="10.40.0.0/16", description="Its addresses. Each job takes one.")
    nat_gateways: int = Field(default=1, ge=1, le=3, description="One per zone survives the loss of a zone.")
    interface_endpoints: bool = Field(
        default=False,
        description="Connect to AWS's APIs without NAT. AWS charges per endpoint and zone.",
    )

    @field_validator("cidr")
    @classmethod
    def _is_private(cls, value: str) -> str:
        network = IPv4Network(value)
        if not network.is_private or not 16 <= network.prefixlen <= 24:
            raise ValueError("the addresses of a VPC must be private, from /16 to /24")
        return value


class ExistingNetwork(StrictModel):
    """An existing VPC with DNS hostnames, internet access from its private subnets, and S3's endpoint."""

    kind: Literal["existing"]
    vpc_id: str = Field(pattern=r"^vpc-([0-9a-f]{8}|[0-9a-f]{17})$")
    cidr: str = Field(description="The addresses of the VPC.")
    private_subnet_ids: tuple[SubnetId, ...] = Field(min_length=2, description="One per zone, in that order.")
    public_subnet_ids: tuple[SubnetId, ...] = Field(min_length=2, description="One per zone, in that order.")

    @field_validator("cidr")
    @classmethod
    def _is_a_network(cls, value: str) -> str:
        return str(IPv4Network(value))


class NewCluster(StrictModel):
    """A new cluster."""

    kind: Literal["new"] = "new"
    container_insights: bool = Field(
        default=False, description="Metrics per service and task. AWS charges for each."
    )


class ExistingCluster(StrictModel):
    """An existing cluster in the same VPC, with the capacity providers FARGATE and FARGATE_SPOT."""

    kind: Literal["existing"]
    cluster_name: str = Field(min_length=1)
