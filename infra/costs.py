"""What a deployment costs while no job runs, from its templates: `python -m infra.costs cdk.out`.

Costs by use are not included: jobs, stored bytes, requests, logs, traffic through NAT.
"""

import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PRICES = tomllib.loads((Path(__file__).parent / "prices.toml").read_text())
_HOURLY = PRICES["hourly"]
_MONTHLY = PRICES["monthly"]
_BY_THE_MONTH = {
    "AWS::SecretsManager::Secret": ("secret", "secret"),
    "AWS::CloudWatch::Alarm": ("alarm", "alarm"),
    "AWS::Logs::MetricFilter": ("metric read from a log", "metric"),
    "AWS::ServiceDiscovery::PrivateDnsNamespace": ("private DNS zone", "private_zone"),
}


@dataclass(frozen=True, slots=True)
class Driver:
    """A resource that costs money while it is idle. `monthly_usd` is None if its price is not known."""

    stack: str
    what: str
    monthly_usd: float | None


def drivers(stack: str, template: Mapping[str, Any]) -> Iterator[Driver]:
    """The cost drivers of one synthesized template."""
    resources = template["Resources"]
    for resource in resources.values():
        for what, price in _prices(resource["Type"], resource.get("Properties", {}), resources):
            yield Driver(stack, what, price)


def _prices(kind: str, properties: Mapping[str, Any], resources: Any) -> Iterator[tuple[str, float | None]]:
    match kind:
        case "AWS::EC2::NatGateway":
            yield "NAT gateway", _a_month(_HOURLY["nat_gateway"])
        case "AWS::EC2::EIP":
            yield "public address of a NAT gateway", _a_month(_HOURLY["public_address"])
        case "AWS::EC2::VPCEndpoint" if properties.get("VpcEndpointType") == "Interface":
            zones = len(properties["SubnetIds"])
            price = _a_month(_HOURLY["interface_endpoint_in_a_zone"] * zones)
            yield f"interface endpoint in {zones} zones", price
        case "AWS::ElasticLoadBalancingV2::LoadBalancer":
            yield from _balancer(properties)
        case "AWS::ECS::Service":
            yield _service(properties, resources)
        case "AWS::RDS::DBInstance":
            yield _database(properties, resources)
        case "AWS::ElastiCache::ReplicationGroup":
            yield _cache(properties)
        case _ if kind in _BY_THE_MONTH:
            what, named = _BY_THE_MONTH[kind]
            yield what, _MONTHLY[named]


def _balancer(properties: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield "load balancer", _a_month(_HOURLY["load_balancer"])
    if properties["Scheme"] == "internet-facing":
        zones = len(properties["Subnets"])
        yield f"{zones} public addresses of the load balancer", _a_month(_HOURLY["public_address"] * zones)


def _service(properties: Mapping[str, Any], resources: Any) -> tuple[str, float]:
    definition = resources[properties["TaskDefinition"]["Ref"]]["Properties"]
    vcpu, gib = int(definition["Cpu"]) / 1024, int(definition["Memory"]) / 1024
    hourly = _HOURLY["fargate_vcpu"] * vcpu + _HOURLY["fargate_gib"] * gib
    tasks = properties["DesiredCount"]
    return f"{tasks} × {definition['Family']}: {vcpu:g} vCPU, {gib:g} GiB", _a_month(hourly * tasks)


def _database(properties: Mapping[str, Any], resources: Any) -> tuple[str, float | None]:
    kind = properties["DBInstanceClass"]
    if kind == "db.serverless":
        cluster = resources[properties["DBClusterIdentifier"]["Ref"]]["Properties"]
        least = cluster["ServerlessV2ScalingConfiguration"]["MinCapacity"]
        return f"Aurora at {least:g} ACU, its minimum", _a_month(_HOURLY["aurora_acu"] * least)
    copies, disk = 1 + bool(properties.get("MultiAZ")), int(properties["AllocatedStorage"])
    what = f"{copies} × {kind}, {disk} GiB"
    if kind not in _HOURLY["database"]:
        return what, None
    return what, copies * (_a_month(_HOURLY["database"][kind]) + disk * _MONTHLY["database_gib"])


def _cache(properties: Mapping[str, Any]) -> tuple[str, float | None]:
    nodes, kind = properties["NumCacheClusters"], properties["CacheNodeType"]
    hourly = _HOURLY["cache"].get(kind)
    return f"{nodes} × {kind}: Valkey", None if hourly is None else nodes * _a_month(hourly)


def _a_month(hourly: float) -> float:
    return hourly * int(PRICES["hours_a_month"])


def table(found: list[Driver]) -> Table:
    """Each driver once, with its number, and the total."""
    shown = Table(title=f"Cost per month while idle, in USD: {PRICES['basis']}", title_justify="left")
    shown.add_column("stack")
    shown.add_column("resource")
    shown.add_column("number", justify="right")
    shown.add_column("USD", justify="right")
    for driver in dict.fromkeys(found):
        number = found.count(driver)
        price = "unknown" if driver.monthly_usd is None else f"{driver.monthly_usd * number:.2f}"
        shown.add_row(driver.stack, driver.what, str(number), price)
    shown.add_section()
    shown.add_row("", "total", "", f"{sum(driver.monthly_usd or 0 for driver in found):.2f}")
    return shown


def main(directory: Path) -> int:
    console = Console(width=110)
    templates = {path.name.split(".")[0]: json.loads(path.read_text()) for path in _templates(directory)}
    for stack, template in templates.items():
        console.print(f"{stack}: {len(template['Resources'])} resources")
    console.print(
        table([driver for stack, template in templates.items() for driver in drivers(stack, template)])
    )
    return 0


def _templates(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.template.json"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
