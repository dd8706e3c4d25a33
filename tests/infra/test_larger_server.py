"""A Prefect server of several tasks: what balances, what they share, and who gets its password."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.infra.deployment import Deployment, name, neglected, secret_literals, unencrypted
from tests.infra.test_agreement import idle_seconds, values

SERVER = "PrefectServerSecurityGroup"
SERVICES = "PrefectServicesSecurityGroup"
BALANCER = "PrefectBalancerSecurityGroup"


@pytest.fixture
def larger(deployments: dict[str, Deployment]) -> Deployment:
    """A copy of the deployment with two replicas of the server."""
    return deployments["existing"].copy()


def test_one_replica_has_nothing_of_it(default: Deployment) -> None:
    assert list(default.all("AWS::ElastiCache::ReplicationGroup")) == []
    assert len(list(default.all("AWS::ElasticLoadBalancingV2::LoadBalancer"))) == 1
    assert "services" not in dict(default.containers())


@pytest.mark.parametrize(
    ("container", "command"),
    [
        ("server", "python -m deployments.server api --migrate --host 0.0.0.0 --port 4200"),
        ("services", "python -m deployments.server services --migrate"),
    ],
)
def test_requests_and_services_have_tasks_of_their_own(
    larger: Deployment, container: str, command: str
) -> None:
    assert " ".join(dict(larger.containers())[container]["Command"]) == command


@pytest.mark.parametrize(
    ("service", "tasks", "least", "most"),
    [("PrefectServerService", 2, 100, 200), ("PrefectServicesService", 1, 0, 100)],
)
def test_tasks_for_requests_are_replaced_one_by_one_and_services_are_never_two(
    larger: Deployment, service: str, tasks: int, least: int, most: int
) -> None:
    properties = larger.one("AWS::ECS::Service", service).properties
    assert properties["DesiredCount"] == tasks
    deployment = properties["DeploymentConfiguration"]
    assert (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]) == (least, most)


def test_the_balancer_is_inside_drains_and_sends_nothing_to_a_task_that_is_not_ready(
    larger: Deployment,
) -> None:
    assert (
        larger.one("AWS::ElasticLoadBalancingV2::LoadBalancer", "Prefect").properties["Scheme"] == "internal"
    )
    targets = larger.one("AWS::ElasticLoadBalancingV2::TargetGroup", "Prefect").properties
    attributes = {each["Key"]: each["Value"] for each in targets["TargetGroupAttributes"]}
    assert attributes["deregistration_delay.timeout_seconds"] == "30"
    assert attributes["stickiness.enabled"] == "false"
    assert targets["HealthCheckPath"] == "/api/ready"
    assert "/api/ready" in str(dict(larger.containers())["server"]["HealthCheck"])


def test_a_failover_of_valkey_replaces_no_task(larger: Deployment) -> None:
    """It takes up to a minute, and a new task would not be ready either."""
    targets = larger.one("AWS::ElasticLoadBalancingV2::TargetGroup", "Prefect").properties
    assert targets["HealthCheckIntervalSeconds"] * targets["UnhealthyThresholdCount"] >= 90
    check = dict(larger.containers())["server"]["HealthCheck"]
    assert check["Interval"] * check["Retries"] >= 90


def test_the_server_keeps_connections_longer_than_its_balancer(larger: Deployment) -> None:
    kept = values(larger, "server")["PREFECT_SERVER_API_KEEPALIVE_TIMEOUT"]
    assert int(kept) > idle_seconds(larger, "Prefect")


def test_all_clients_use_the_balancer(larger: Deployment) -> None:
    balancer = larger.one("AWS::ElasticLoadBalancingV2::LoadBalancer", "Prefect")
    address = {"Fn::GetAtt": [balancer.id, "DNSName"]}
    for client in ("api", "worker", "reconciler", "registration"):
        url = values(larger, client)["PREFECT_API_URL"]
        assert url == {"Fn::Join": ["", ["http://", address, ":4200/api"]]}


def test_only_the_tasks_of_the_server_reach_valkey_and_only_its_balancer_reaches_them(
    larger: Deployment,
) -> None:
    reached: dict[tuple[int, str], set[str]] = {}
    for rule in larger.all("AWS::EC2::SecurityGroupIngress"):
        group, source = rule.properties["GroupId"], rule.properties["SourceSecurityGroupId"]
        what = name(group["Fn::GetAtt"][0]) if isinstance(group, dict) else group
        reached.setdefault((rule.properties["FromPort"], what), set()).add(name(source["Fn::GetAtt"][0]))
    reached = {where: who for where, who in reached.items() if where[0] != 8000}
    assert reached == {
        (4200, BALANCER): {"WorkerSecurityGroup", "FacadeApiSecurityGroup"},
        (4200, SERVER): {BALANCER},
        (5432, "sg-0c0c0c0c0c0c0c0c0"): {SERVER, SERVICES},
        (6379, "PrefectValkeySecurityGroup"): {SERVER, SERVICES},
    }


def test_the_password_of_valkey_reaches_its_users_as_a_secret_and_nobody_else(larger: Deployment) -> None:
    token = larger.one("AWS::SecretsManager::Secret", "PrefectValkeyToken")
    injected = {
        container: secret["Name"]
        for container, definition in larger.containers()
        for secret in definition.get("Secrets", [])
        if secret["ValueFrom"] == {"Ref": token.id}
    }
    assert injected == dict.fromkeys(("server", "services"), "JOBS_VALKEY_PASSWORD")
    readers = {
        name(statement.role) for statement in larger.statements() if f"<{token.id}>" in statement.resources
    }
    assert readers == {
        "PrefectServerDefinitionExecutionRole",
        "PrefectServicesDefinitionExecutionRole",
    }


def test_valkey_asks_for_a_password_and_evicts_nothing(larger: Deployment) -> None:
    properties = larger.one("AWS::ElastiCache::ReplicationGroup").properties
    assert "{{resolve:secretsmanager:" in str(properties["AuthToken"])
    assert properties["MultiAZEnabled"]
    assert "NumNodeGroups" not in properties, "Prefect's package for Redis has no cluster mode"
    parameters = larger.one("AWS::ElastiCache::ParameterGroup").properties
    assert parameters["Properties"] == {"maxmemory-policy": "noeviction"}


def store_in_clear(nodes: dict[str, Any]) -> None:
    nodes["AtRestEncryptionEnabled"] = False


def speak_in_clear(nodes: dict[str, Any]) -> None:
    del nodes["TransitEncryptionEnabled"]


def write_the_password(nodes: dict[str, Any]) -> None:
    nodes["AuthToken"] = "planted"


def forget_the_standby(nodes: dict[str, Any]) -> None:
    nodes["AutomaticFailoverEnabled"] = False


@pytest.mark.parametrize(
    ("plant", "check", "named"),
    [
        (store_in_clear, unencrypted, "PrefectValkeyNodes stores in clear"),
        (speak_in_clear, unencrypted, "PrefectValkeyNodes can be spoken to without TLS"),
        (write_the_password, secret_literals, "AuthToken"),
        (forget_the_standby, neglected, "PrefectValkeyNodes has no standby"),
    ],
)
def test_a_planted_defect_is_found(
    larger: Deployment,
    plant: Callable[[dict[str, Any]], None],
    check: Callable[[Deployment], Iterable[str]],
    named: str,
) -> None:
    before = set(check(larger))
    plant(larger.one("AWS::ElastiCache::ReplicationGroup").properties)
    assert any(named in finding for finding in set(check(larger)) - before)
